"""Programs outside: the system's viewer, and the user's editor or pager.

The rule this module protects: nothing is started where it would show on nobody's or somebody
else's screen; instead it is said why. No shell sees a name.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from daemon.errors import UsageError

Which = Callable[[str], str | None]

_VIEWERS = ("VISUAL", "EDITOR", "PAGER")
_PAGERS = ("less", "more", "vi")


def opener(environ: Mapping[str, str], platform: str, which: Which = shutil.which) -> str:
    """Return the program that opens a file with the system's viewer.

    Raises:
        UsageError: there is no screen of the user's, or no such program.
    """
    remote = environ.get("SSH_CONNECTION") or environ.get("SSH_TTY")
    if platform == "darwin":
        if remote:
            raise _no_screen("this is a session over ssh; it would open on the other machine")
        return _found("open", which)
    if not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        raise _no_screen("there is no display here (neither DISPLAY nor WAYLAND_DISPLAY is set)")
    return _found("xdg-open", which)


def _no_screen(why: str) -> UsageError:
    return UsageError(why, remedy="s saves the file to a folder, y copies the command to fetch it")


def _found(program: str, which: Which) -> str:
    path = which(program)
    if path is None:
        raise UsageError(f"{program} is not on the PATH", remedy="s saves the file to a folder")
    return path


def open_file(program: str, path: Path) -> None:
    """Start the viewer, apart from this terminal."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        [program, str(path)], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )
    threading.Thread(target=process.wait, daemon=True).start()  # nobody else asks how it ended


def reader(environ: Mapping[str, str], which: Which = shutil.which) -> list[str]:
    """Return the command of the user's editor or pager.

    Raises:
        UsageError: none is named, and none of the usual ones is there.
    """
    for name in _VIEWERS:
        words = _words(environ.get(name, ""))
        if words and which(words[0]):
            return words
    for program in _PAGERS:
        if which(program):
            return [program]
    raise UsageError(
        "no editor or pager was found", remedy="name one in EDITOR or PAGER, or save the file: s"
    )


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []


def read_file(command: list[str], path: Path) -> None:
    """Run the editor or pager in this terminal until it ends."""
    subprocess.run([*command, str(path)], check=False)
