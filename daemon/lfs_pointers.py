"""Git LFS pointers: small texts that lie where a clone without Git LFS should have weights.

The rule this module protects: such a file is called what it is. To say of it that it is damaged
would send its owner to download it again in the same way.
"""

from __future__ import annotations

from pathlib import Path

from daemon.errors import ModelError
from daemon.regular_files import open_regular

# The first line of a pointer (the Git LFS specification, version 1).
_BEGIN = b"version https://git-lfs.github.com/spec/"


def check_no_pointer(path: Path, name: str) -> None:
    """Refuse a pointer; ``name`` is what the message calls the file.

    Raises:
        ModelError: it is one.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        begin = file.read(len(_BEGIN))
    if begin == _BEGIN:
        raise ModelError(
            f"{name} is a Git LFS pointer, not the file that it stands for",
            remedy="fetch the files themselves: git lfs pull, in the folder that was cloned",
        )
