"""From the staging folder to a model with a name.

The rule this module protects: a name stands for a whole model from the first moment, and nothing
that bears one already is touched.
"""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from daemon.durable import sync_folder
from daemon.errors import JobError, ModelError
from workers.failures import disk_errors
from workers.language.conversion.folder import PROVENANCE

_EXISTS = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR})
_OTHER_NAME = "choose another name with --to, or remove it first: studioq models rm NAME"


def prepare(staging: Path, *, keep: bool) -> None:
    """Make the staging folder; empty, unless what an earlier attempt wrote is kept."""
    with disk_errors(staging):
        if not keep:
            shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True, exist_ok=True)
        sync_folder(staging.parent)


def publish(staging: Path, target: Path) -> bool:
    """Give the finished model its name; return False if the same model has it already.

    Raises:
        ModelError: something else has the name.
    """
    try:
        # Never replaces a folder that holds something.
        staging.rename(target)
    except OSError as error:
        if error.errno not in _EXISTS:
            raise
        differing = _first_difference(staging, target)
        if differing is not None:
            raise exists(target, f"and its {differing} is not what was made now") from None
        shutil.rmtree(staging)
        return False
    sync_folder(target.parent)
    return True


def exists(target: Path, said: str) -> ModelError:
    """Return the error that something has the name already; ``said`` ends the sentence."""
    name = f"{target.parent.name}/{target.name}"
    return ModelError(
        f"there is a model {name} already, {said}; it is not overwritten",
        field="to",
        remedy=_OTHER_NAME,
    )


def unwritable(target: Path, error: OSError) -> JobError:
    """Return what is to be said where the system forbids to write a model, or takes it away."""
    return JobError(
        f"{target.parent.name}/{target.name} cannot be written: {error.strerror or error} "
        f"({error.filename or target.parent})",
        remedy="the first model root has to be a folder that the daemon's account may write to, "
        "and nothing else may change it meanwhile: studioq models path",
    )


def _first_difference(made: Path, there: Path) -> str | None:
    """Return the first file of the two models that is not the same in both, None if none."""
    if not there.is_dir():
        return "file"
    names = {name for folder in (made, there) for name in _file_names(folder)}
    for name in sorted(names - {PROVENANCE}):
        files = made / name, there / name
        if not all(file.is_file() for file in files) or not filecmp.cmp(*files, shallow=False):
            return name
    return None


def _file_names(folder: Path) -> Iterator[str]:
    return (path.name for path in folder.iterdir() if not path.name.startswith("."))


def link_files(model: Path, folder: Path) -> list[str]:
    """Give every file of a model but its provenance a second name in ``folder``.

    Returns:
        The names, sorted; none where the two are on different disks, which know no such links.
    """
    folder.mkdir(exist_ok=True)
    names = sorted(name for name in _file_names(model) if name != PROVENANCE)
    for name in names:
        (folder / name).unlink(missing_ok=True)
        try:
            os.link(model / name, folder / name)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP):
                raise
            return []
    sync_folder(folder)
    return names
