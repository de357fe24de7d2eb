"""MLX itself: whether it imports, which device it has, how much memory, and a fast BLAS on the CPU.

MLX is imported in a child process, because a broken driver aborts instead of raising; nothing is
computed there, because the GPU belongs to the engine alone.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.checks import Finding, error, note, ok, size, warning
from daemon.checks.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

PROBE = """
import json
import mlx.core as mx
info = mx.device_info() if hasattr(mx, "device_info") else mx.metal.device_info()
print(json.dumps({"version": mx.__version__, "gpu": mx.default_device().type == mx.gpu,
                  "info": {name: value for name, value in info.items()}}, default=str))
"""
BACKENDS = ("mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")
# Multiplies two 64 by 64 matrices of ones (arguments as in cblas.h).
BLAS_PROBE = """
import ctypes, sys
n = 64
ones, out = (ctypes.c_float * (n * n))(*[1.0] * (n * n)), (ctypes.c_float * (n * n))()
multiply = ctypes.CDLL(sys.argv[1]).cblas_sgemm
multiply.restype = None
one, zero = ctypes.c_float(1), ctypes.c_float(0)
multiply(101, 111, 111, n, n, n, one, ones, n, ones, n, zero, out, n)
sys.exit(set(out) != {float(n)})
"""
IMPORT_PATIENCE = 120.0  # seconds; a first import from a cold disk takes tens of them


def mlx(machine: Machine) -> Iterator[Finding]:
    """Judge the installed MLX, its device and what goes with it."""
    if importlib.util.find_spec("mlx") is None:
        yield note("mlx", "not installed yet", "python3 -m pip install .")
        return
    done = _python(PROBE)
    if done.returncode:
        yield failed_import(machine, done.returncode, done.stderr.decode("utf-8", "replace"))
        return
    answer = json.loads(done.stdout.decode("utf-8").splitlines()[-1])
    yield from judge(machine, answer)
    yield from judge_backends(_installed(BACKENDS))
    if machine.system == "Linux" and not answer["gpu"]:
        yield openblas([Path(entry) for entry in sys.path])


def _python(program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=IMPORT_PATIENCE,
        check=False,
    )


def failed_import(machine: Machine, status: int, stderr: str) -> Finding:
    """Judge an import of MLX that ended with this exit status and this last word."""
    lines = stderr.strip().splitlines()
    last = lines[-1] if lines else "it says nothing"
    if "libmlx.so" in last:
        backend = "cuda13" if machine.nvidia else "cpu"
        return error(
            "mlx",
            f"installed without a backend ({last})",
            f'python3 -m pip install "mlx[{backend}]" (plain mlx brings none on Linux)',
        )
    if status < 0:
        last = f"the import was ended by {signal.Signals(-status).name}: {last}"
    return error("mlx", last, "python3 -m pip install --force-reinstall mlx; run doctor again")


def judge(machine: Machine, answer: dict[str, Any]) -> Iterator[Finding]:
    """Judge what MLX says about itself: version, device, memory."""
    info = answer["info"]
    name = info.get("device_name") or machine.chip or info.get("architecture", "")
    kind = "GPU" if answer["gpu"] else "CPU"
    found = f"{answer['version']} on the {kind}, {name}"
    if machine.system == "Darwin" and not answer["gpu"]:
        yield error("mlx", found, "MLX sees no Metal device, as in a virtual machine")
    elif machine.nvidia and not answer["gpu"]:
        yield note("mlx", f"{found}, beside an NVIDIA GPU", "python3 -m pip install '.[cuda]'")
    else:
        yield ok("mlx", found)
    yield from memory_limit(info)


def _installed(names: tuple[str, ...]) -> list[str]:
    """Return those of the distributions that are installed."""
    present = {str(found.metadata["Name"]).lower() for found in metadata.distributions()}
    return [name for name in names if name in present]


def judge_backends(installed: list[str]) -> Iterator[Finding]:
    """Judge the installed Linux backends: each brings the one libmlx.so that mlx looks for."""
    if len(installed) < 2:
        return
    kept = installed[-1]
    others = " ".join(installed[:-1])
    yield warning(
        "mlx backends",
        f"{' and '.join(installed)} overwrite each other's libmlx.so; the last installed is used",
        f"python3 -m pip uninstall -y {others} && "
        f"python3 -m pip install --force-reinstall --no-deps {kept}",
    )


def memory_limit(info: dict[str, Any]) -> Iterator[Finding]:
    """Say how much of the memory the GPU may use, where MLX knows."""
    usable = info.get("max_recommended_working_set_size")
    physical = info.get("memory_size")
    if not usable or not physical:
        return
    share = 100 * int(usable) / int(physical)
    yield ok("gpu memory", f"{size(usable)} of {size(physical)} ({share:.0f} %) recommended")


def openblas(folders: list[Path]) -> Finding:
    """Judge whether the CPU build can be given a fast BLAS; its own reaches about 5 GFLOP/s."""
    for folder in folders:
        for library in sorted((folder / "cmeel.prefix" / "lib").glob("libopenblas.so*")):
            done = _python(BLAS_PROBE, str(library))
            return judge_openblas(library, done.returncode, done.stderr.decode("utf-8", "replace"))
    return warning(
        "openblas",
        "not found: float32 runs 10 to 30 times slower on the CPU",
        "python3 -m pip install cmeel-openblas",
    )


def judge_openblas(library: Path, status: int, stderr: str) -> Finding:
    """Judge a library whose multiplication ended with this exit status and these last words."""
    lines = stderr.strip().splitlines()
    if status == 0:
        return ok("openblas", str(library))
    if status == -signal.SIGILL:
        return warning(
            "openblas",
            f"{library} was built for another processor",
            "python3 -m pip install cmeel-openblas==0.3.29 (0.3.31 needs AVX-512)",
        )
    if "libgfortran" in stderr:
        return note(
            "openblas",
            f"{library} lacks the system's libgfortran; the worker lends it MLX's, if that fits",
            "apt install libgfortran5",
        )
    last = lines[-1] if lines else f"exit status {status}"
    return warning("openblas", f"{library}: {last}", "reinstall cmeel-openblas")
