"""Where a converted model is written, and where it is put together before it has its name.

The rule this module protects: a name under a model root stands for a whole model. What is being
written lies beside its target under a hidden name that says whose it is, and what is left there of
a job that has ended is found by that name alone.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_USER = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)
_STAGING = re.compile(r"\..+\.job-([1-9]\d{0,17})")
_LEFT = ".left"


def user_folder(name: str, uid: int) -> str:
    """Return what the folder of a user's models is called: the account's name, or ``uid-N``.

    An account's name may be one that no model's name can begin with.
    """
    return name if _USER.fullmatch(name) and ".." not in name else f"uid-{uid}"


def target_folder(root: Path, *, user: str, uid: int, to: str) -> Path:
    """Return where the model ``to`` of a user is written: ``root/USER/NAME``."""
    return root.absolute() / user_folder(user, uid) / to


def staging_folder(target: Path, job: int) -> Path:
    """Return where job ``job`` puts together what becomes ``target`` when it is whole."""
    return target.with_name(f".{target.name}.job-{job}")


@dataclass(frozen=True, kw_only=True)
class Staging:
    """A folder in which the job ``job`` puts a model together, or has."""

    path: Path
    job: int


def staging_folders(root: Path) -> list[Staging]:
    """Return the staging folders in the users' folders of ``root``."""
    found = ((path, _STAGING.fullmatch(path.name)) for path in _hidden_folders(root))
    return [Staging(path=path, job=int(match[1])) for path, match in found if match]


def set_aside(staging: Staging) -> None:
    """Take a staging folder's name from it, so that no job goes on with it.

    That takes no time, whatever the folder holds; ``remove_set_aside`` does.
    """
    staging.path.rename(staging.path.with_name(f"{staging.path.name}{_LEFT}"))


def remove_set_aside(root: Path) -> None:
    """Remove what was set aside in the users' folders of ``root``, also by an earlier daemon."""
    for path in _hidden_folders(root):
        if path.name.endswith(_LEFT) and _STAGING.fullmatch(path.name.removesuffix(_LEFT)):
            shutil.rmtree(path, ignore_errors=True)


def _hidden_folders(root: Path) -> Iterator[Path]:
    """Yield the hidden folders in the folders of ``root``; links are not followed."""
    for user in _folders(root):
        if not user.name.startswith("."):
            yield from (path for path in _folders(user) if path.name.startswith("."))


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []
