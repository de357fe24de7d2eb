"""The environment that the engine's process needs before it imports MLX.

The rule this module protects: the engine starts whatever is missing here; a library that cannot be
preloaded costs speed, never the engine. Imports no MLX, because the worker reads it.

MLX's CPU wheel links the reference BLAS (about 5 GFLOP/s). OpenBLAS loaded first answers the same
calls ten times as fast. The wheel of ``cmeel-openblas`` needs the system's ``libgfortran.so.5``;
where that is not installed, the copy that MLX's own wheel brings is offered to it under that name.
Its builds are each for one processor (0.3.29: AVX2; 0.3.31: AVX-512, elsewhere an illegal
instruction), so a child process multiplies once before the engine is given the library.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from daemon.locate import Paths

# How the worker tells the engine what the home's configuration allows.
BUDGET_VARIABLE = "STUDIOQ_MODEL_BUDGET"
CACHE_VARIABLE = "STUDIOQ_BUFFER_CACHE"

_OPENBLAS = "cmeel-openblas"
_FORTRAN = "libgfortran.so.5"

# Multiplies two matrices of ones, 64 by 64, row-major, neither transposed, through the preloaded
# library (arguments as in cblas.h). Exits with 0 if the product is right.
_PROBE = """
import ctypes
n = 64
ones, out = (ctypes.c_float * (n * n))(*[1.0] * (n * n)), (ctypes.c_float * (n * n))()
one, zero = ctypes.c_float(1.0), ctypes.c_float(0.0)
multiply = ctypes.CDLL(None).cblas_sgemm
multiply.restype = None
multiply(101, 111, 111, n, n, n, one, ones, n, ones, n, zero, out, n)
raise SystemExit(0 if set(out) == {float(n)} else 1)
"""


def engine_environment(links: Path | None = None) -> dict[str, str]:
    """Return the variables to add to the engine's environment; nothing on macOS.

    ``links``: a folder of this user for links to libraries, by default one in studioq's home.
    """
    if sys.platform != "linux":
        return {}
    if cuda_installed():
        return {name: value for name, value in _cuda().items() if name not in os.environ}
    threads = os.environ.get("OPENBLAS_NUM_THREADS") or str(_threads())
    plain = {"MLX_DISABLE_COMPILE": "1", "OPENBLAS_NUM_THREADS": threads}
    library = openblas()
    if library is None:
        return plain
    for extra in ({}, {"LD_LIBRARY_PATH": _library_path(links or Paths.default().libraries)}):
        faster = {**plain, **extra, "LD_PRELOAD": _appended("LD_PRELOAD", str(library), " ")}
        if _works(faster):
            return faster
    return plain


def _cuda() -> dict[str, str]:
    """Return what MLX's CUDA backend needs for diffusion, unless the environment says otherwise.

    Without CUDA graphs, which MLX builds anew at every step, a UNet of SD 2.1's shape made 82, 165
    and 196 step-images a second at batch 1, 4 and 16 on an H100, with them 42, 117 and 168; a 7B
    model's decoding fell from 150 to 143 tokens a second. MLX compiles its kernels at run time (50
    seconds for that UNet) and keeps them in the system's temporary folder, which a restart empties.
    """
    return {"MLX_USE_CUDA_GRAPHS": "0", "MLX_PTX_CACHE_DIR": str(Paths.default().kernels)}


def _threads() -> int:
    """Return one thread fewer than there are processors, at least one.

    OpenBLAS's threads wait for each other in a loop. On two processors with another busy process,
    two threads fell from 72 to as little as 0.2 GFLOP/s, where one kept 56; alone they gain 30 %.
    """
    return max(1, len(os.sched_getaffinity(0)) - 1)


def cuda_installed() -> bool:
    """Say whether MLX's CUDA backend is installed and the driver has made a device."""
    names = ("mlx-cuda-12", "mlx-cuda-13", "mlx-cuda")
    return any(_version(name) for name in names) and Path("/dev/nvidiactl").exists()


def openblas() -> Path | None:
    """Return the OpenBLAS library that pip installed, None if there is none."""
    return _file_of(_OPENBLAS, "libopenblas.so")


def _library_path(links: Path) -> str:
    """Return a library path on which OpenBLAS finds MLX's copy of the Fortran runtime."""
    found = _file_of("mlx-cpu", "libgfortran-")
    if found is None:
        return os.environ.get("LD_LIBRARY_PATH", "")
    try:
        _link(links / _FORTRAN, found)
    except OSError:
        return os.environ.get("LD_LIBRARY_PATH", "")
    return _appended("LD_LIBRARY_PATH", f"{links}:{found.parent}", ":")


def _link(link: Path, target: Path) -> None:
    """Make ``link`` point to ``target``, replacing what it pointed to in one step."""
    if link.is_symlink() and link.readlink() == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    staged = link.with_name(f"{link.name}.{os.getpid()}")
    staged.unlink(missing_ok=True)
    staged.symlink_to(target)
    staged.replace(link)


def _file_of(distribution: str, start: str) -> Path | None:
    """Return the first installed file of ``distribution`` whose name begins with ``start``."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return None
    places = (Path(str(file.locate())).resolve() for file in files if file.name.startswith(start))
    return next((place for place in sorted(places) if place.is_file()), None)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _appended(variable: str, value: str, separator: str) -> str:
    """Return the present value of ``variable`` with ``value`` after it, once."""
    present = [part for part in os.environ.get(variable, "").split(separator) if part]
    parts = value.split(separator) if separator == ":" else [value]
    return separator.join([*present, *(part for part in parts if part not in present)])


def _works(environment: dict[str, str]) -> bool:
    """Say whether a process with ``environment`` starts, is quiet, and multiplies rightly."""
    finished = subprocess.run(
        [sys.executable, "-S", "-c", _PROBE],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        timeout=30,
    )
    return finished.returncode == 0 and not finished.stderr
