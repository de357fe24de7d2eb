"""A picture is shown where the terminal can; elsewhere nothing is printed, and nothing fails."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from PIL import Image

from daemon.cli.picture import show_picture

PROGRAM = """
import sys
from pathlib import Path
from daemon.cli.picture import show_picture
print("shown" if show_picture(Path(sys.argv[1]), sys.stdout) else "silent")
"""
# A new session has no terminal of its own until it takes one, as a login does.
AS_A_LOGIN = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)" + PROGRAM
CELL = re.compile(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀")
SIXEL_DEVICE, KITTY_SAYS_OK = b"\x1b[?62;4c", b"\x1b_Gi=1;OK\x1b\\"
CELL_SIZE = {b"\x1b[16t": b"\x1b[6;20;10t"}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Return a PNG of two halves, red and blue."""
    image = Image.new("RGB", (64, 64), (255, 0, 0))
    image.paste((0, 0, 255), (32, 0, 64, 64))
    image.save(tmp_path / "a.png")
    return tmp_path / "a.png"


def in_terminal(
    path: Path,
    answers: Mapping[bytes, bytes] = MappingProxyType({}),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return what the program prints on a terminal of 100 by 30 that gives these answers."""
    settings = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "NO_COLOR": "", **environment}
    # A test runner may have said how large its own terminal is.
    inherited = {key: text for key, text in os.environ.items() if key not in ("LINES", "COLUMNS")}
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-c", AS_A_LOGIN, str(path)],
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
        env={**inherited, **settings},
        start_new_session=True,
    ) as program:
        os.close(its_end)
        output, unasked = b"", dict(answers)
        while piece := read(terminal):
            output += piece
            for question in [question for question in unasked if question in output]:
                os.write(terminal, unasked.pop(question))
        os.close(terminal)
    assert program.returncode == 0
    return output.decode()


def read(terminal: int) -> bytes:
    """Return what has come; nothing once the program has ended (Linux raises then)."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_a_plain_terminal_shows_coloured_half_cells(picture: Path) -> None:
    output = in_terminal(picture)
    assert output.endswith("shown\r\n")
    lines = [CELL.findall(line) for line in output.splitlines() if CELL.search(line)]
    assert len(lines) == 24
    assert {len(line) for line in lines} == {48}
    assert all(line[2] == ("255", "0", "0") * 2 for line in lines)
    assert all(line[-3] == ("0", "0", "255") * 2 for line in lines)


def test_a_terminal_with_graphics_gets_them(picture: Path) -> None:
    sixels = in_terminal(picture, {b"\x1b[c": SIXEL_DEVICE, **CELL_SIZE})
    assert re.search(r"\x1bP0;0;0q.*\x1b\\", sixels, re.DOTALL)
    kitty = in_terminal(picture, {b"\x1b_Gi=": KITTY_SAYS_OK, **CELL_SIZE})
    assert "f=100" in kitty
    assert "\U0010eeee" in kitty


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}])
def test_a_terminal_that_wants_none_gets_none(picture: Path, environment: dict[str, str]) -> None:
    assert in_terminal(picture, environment=environment) == "silent\r\n"


def test_a_file_that_is_no_picture_is_silence(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    for path in (tmp_path / "a.png", tmp_path / "missing.png"):
        assert in_terminal(path).endswith("silent\r\n")


def test_a_pipe_gets_nothing(picture: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("silent\n", "")


def test_a_closed_or_odd_stream_is_silence(picture: Path) -> None:
    closed = io.StringIO()
    closed.close()
    assert not show_picture(picture, closed)
    assert not show_picture(picture, io.StringIO())
