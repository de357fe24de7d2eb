"""The helper process that fetches one model: progress out as JSON lines, nothing half-done left.

The rule it protects: a model appears under its root whole or not at all, and the submitter's token
is in this process only: it comes over stdin and is neither stored nor logged. Without one, nothing
of the daemon account's own is used in its place.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from daemon.bundled import check_usable, fetch_bundled
from daemon.durable import sync_file, sync_folder
from daemon.errors import DiskFullError, ModelError, StudioqError
from daemon.hub_files import HubFile, wanted_files
from daemon.models import is_bundled
from daemon.staging import staging_folder

Progress = Callable[[int, int | None], None]

_LOOK_EVERY = 0.5
_SPARE = 2**30

# The classes of errors of the hub library's HTTP clients that mean: no connection.
_NETWORK = {"NetworkError", "TransportError", "ConnectionError", "TimeoutException"}
_NETWORK |= {"LocalEntryNotFoundError", "OfflineModeIsEnabled"}

# The account's own way into the hub, and what would leave traces in its home.
_FORBIDDEN = ("HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
_SETTINGS = {
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def main() -> None:
    """Read ``{"model", "root", "token"}`` from stdin, fetch the model, report on stdout."""
    signal.signal(signal.SIGTERM, _leave)
    request = json.loads(sys.stdin.readline())
    name, root = str(request["model"]), Path(str(request["root"]))
    try:
        if is_bundled(name):
            fetch_bundled(name, root, _say_progress)
        else:
            fetch_from_hub(name, root, request.get("token"), _say_progress)
    except StudioqError as error:
        _say(error=error.to_dict())
        sys.exit(1)
    except OSError as error:
        _say(error=ModelError(f"{name} could not be stored in {root}: {error}").to_dict())
        sys.exit(1)
    _say(done=True)


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    """End by an exception, so that what is staged is removed."""
    sys.exit(1)


def _drop(staged: Path, _signal: int, _frame: FrameType | None) -> NoReturn:
    """End at once: an exception would wait for the hub library's threads."""
    shutil.rmtree(staged, ignore_errors=True)
    os._exit(1)


def _say(**message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _say_progress(done: int, total: int | None) -> None:
    _say(bytes=done, total=total)


def fetch_from_hub(name: str, root: Path, token: str | None, progress: Progress) -> Path:
    """Put the hub's model ``name`` (org/name) into the model root ``root``; return its folder.

    Raises:
        ModelError: it cannot be reached, is not there, or has no weights that can be used.
        DiskFullError: it does not fit.
    """
    final = root / name
    if final.exists():
        check_usable(name, root, final)
        return final
    with staging_folder(root) as folder:
        signal.signal(signal.SIGTERM, partial(_drop, folder))
        staging = folder / "model"
        _prepare_environment(folder)
        wanted = _wanted_files(name, token)
        total = sum(size for _, size in wanted)
        _check_space(name, root, total)
        with _Reporter(staging, total, progress):
            _download(name, staging, [file for file, _ in wanted], token)
        shutil.rmtree(staging / ".cache", ignore_errors=True)
        _publish(staging, final)
    progress(total, total)
    return final


def _prepare_environment(scratch: Path) -> None:
    for name in _FORBIDDEN:
        os.environ.pop(name, None)
    os.environ.update(_SETTINGS, HF_HOME=str(scratch / "hf"))


def _wanted_files(name: str, token: str | None) -> list[HubFile]:
    """Return (file, bytes) of what is to be fetched."""
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(name, files_metadata=True, token=token or False)
    except Exception as error:  # noqa: BLE001 - the libraries below it raise their own kinds
        raise _hub_error(name, error, token=token) from None
    return wanted_files(name, ((item.rfilename, item.size or 0) for item in found.siblings or ()))


def _check_space(name: str, root: Path, total: int) -> None:
    free = shutil.disk_usage(root).free
    if total + _SPARE > free:
        raise DiskFullError(
            f"{name} has {total / 1e9:.1f} GB, and {root} has {free / 1e9:.1f} GB free",
            remedy="free space there, then studioq retry N",
        )


def _download(name: str, staging: Path, files: Iterable[str], token: str | None) -> None:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(name, local_dir=staging, allow_patterns=list(files), token=token or False)
    except Exception as error:  # noqa: BLE001 - the libraries below it raise their own kinds
        raise _hub_error(name, error, token=token) from None


def _hub_error(name: str, error: Exception, *, token: str | None) -> ModelError:
    """Say what kept the model away, and the way out."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return ModelError(
            f"{name} may be fetched only by those who have accepted its terms",
            remedy="accept them on the hub, and submit with HF_TOKEN set to a token of yours",
        )
    if isinstance(error, RepositoryNotFoundError):
        return ModelError(
            f"the hub has no model {name}, or it is private",
            remedy="check its spelling; for a private one submit with HF_TOKEN set",
        )
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    if token:
        reason = reason.replace(token, "…")
    if _NETWORK & {cls.__name__ for cls in type(error).__mro__}:
        reason = f"the Hugging Face hub cannot be reached ({reason}); is this machine offline?"
    return ModelError(
        f"{name} could not be downloaded: {reason}",
        remedy="copy the model's folder to the model root under this name (studioq models path "
        "shows where), or try again when the hub can be reached",
    )


def _publish(staging: Path, final: Path) -> None:
    """Sync the files and give the folder its name."""
    for file in staging.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                sync_file(opened)
    final.parent.mkdir(parents=True, exist_ok=True)
    staging.rename(final)
    for folder in (final.parent, final.parent.parent):
        sync_folder(folder)


class _Reporter(threading.Thread):
    """Tells how many bytes lie below a folder, until the ``with`` block ends."""

    def __init__(self, folder: Path, total: int, progress: Progress) -> None:
        super().__init__(daemon=True)
        self._folder, self._total, self._progress = folder, total, progress
        self._over = threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        """Report every half second."""
        while not self._over.wait(_LOOK_EVERY):
            self._progress(min(_bytes_below(self._folder), self._total), self._total)


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total
