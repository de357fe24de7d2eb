"""Picture files: drawn, refused, kept; the terminal and the programs outside."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import stat
import struct
import subprocess
import sys
import termios
import threading
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from daemon.errors import StudioqError, TooLargeError, UsageError
from tests.unit.tui.outputs.conftest import png
from tui.outputs import outside, saving, terminal
from tui.outputs.decode import Frame, open_picture
from tui.outputs.half_cells import half_cells
from tui.outputs.saving import Counting, StoppedError
from tui.outputs.scratch import Scratch
from tui.outputs.terminal import Drawing

FRAME = Frame(columns=40, rows=20)


def written(folder: Path, content: bytes, name: str = "a.png") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that says that it is large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("size", "cells"), [((400, 400), (40, 20)), ((800, 200), (40, 5)), ((100, 800), (5, 20))]
)
def test_a_picture_keeps_its_proportions(size: tuple[int, int], cells: tuple[int, int]) -> None:
    assert FRAME.fit(*size) == cells


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (3, 2)])
def test_odd_sizes_are_drawn(tmp_path: Path, size: tuple[int, int]) -> None:
    picture = open_picture(written(tmp_path, png(*size)), FRAME, half_cells=True)
    assert picture.size == size
    assert 1 <= picture.columns <= 40
    assert 1 <= picture.rows <= 20
    assert picture.image.size == (picture.columns, 2 * picture.rows)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_all_kinds_of_pixels_become_colours(tmp_path: Path, mode: str) -> None:
    file = io.BytesIO()
    grey = Image.new("I;16", (50, 50), 65_535) if mode == "I;16" else Image.new("L", (50, 50), 255)
    image = grey if mode == "I;16" else grey.convert(mode)
    image.save(file, "JPEG" if mode == "CMYK" else "PNG")
    path = written(tmp_path, file.getvalue())
    for cells in (True, False):
        drawn = open_picture(path, FRAME, half_cells=cells).image
        assert drawn.mode == "RGB"
        assert min(drawn.getpixel((3, 3))) > 240  # type: ignore[arg-type]


def test_what_is_transparent_lies_on_the_background(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(file, "PNG")
    frame = Frame(columns=4, rows=2, background=(10, 20, 30))
    picture = open_picture(written(tmp_path, file.getvalue()), frame, half_cells=True)
    assert picture.image.getpixel((0, 0)) == (10, 20, 30)


def test_pictures_of_pixels_have_the_cells_size(tmp_path: Path) -> None:
    frame = Frame(columns=10, rows=10, cell=(8, 16))
    picture = open_picture(written(tmp_path, png(500, 500)), frame, half_cells=False)
    assert picture.image.size == (80, 80)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "neither PNG nor JPEG"),
        (b"\x89PNG\r\n\x1a\n", "neither PNG nor JPEG"),
        (png(300, 300)[:200], "cannot be shown"),
        (bomb(9_000, 9_000), "9,000 by 9,000 pixels"),
        (bomb(12_000, 12_000), "pixels"),
        (bomb(60_000, 60_000), "pixels"),
        (bomb(300, 300), "cannot be shown"),
        (b"GIF89a" + b"\0" * 50, "neither PNG nor JPEG"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 50, "cannot be shown"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(StudioqError, match=words) as caught:
        open_picture(written(tmp_path, content), FRAME, half_cells=True)
    assert caught.value.remedy
    assert str(tmp_path) not in caught.value.message


def test_a_damaged_text_chunk_is_one_sentence(tmp_path: Path) -> None:
    data = b"Comment\0\0" + zlib.compress(b"x" * 80_000_000)
    chunk = (
        struct.pack(">I", len(data))
        + b"zTXt"
        + data
        + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    )
    content = png()
    with pytest.raises(StudioqError, match="cannot be shown"):
        open_picture(written(tmp_path, content[:33] + chunk + content[33:]), FRAME, half_cells=True)


def test_half_cells_are_two_pixels_each() -> None:
    image = Image.new("RGB", (3, 4), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    strips = half_cells(image)
    assert [strip.cell_length for strip in strips] == [3, 3]
    first = list(strips[0])
    assert [segment.text for segment in first] == ["▀", "▀", "▀"]
    style = first[1].style
    assert style is not None
    assert style.color is not None
    assert style.bgcolor is not None
    assert style.color.triplet == (9, 9, 9)
    assert style.bgcolor.triplet == (1, 2, 3)
    assert [segment.text for segment in strips[1]] == ["▀▀▀"]


class Files:
    """Gives contents by name, and counts."""

    def __init__(self, **contents: bytes) -> None:
        self.contents = contents
        self.asked: list[str] = []

    def blocks(self, number: int, name: str) -> Iterator[bytes]:
        self.asked.append(name)
        yield self.contents[name]

    def artifact(self, name: str) -> Any:
        content = self.contents[name]
        digest = sha256(content).hexdigest()
        return {"name": name, "kind": "image", "bytes": len(content), "sha256": digest}


def test_the_scratch_folder_is_private_bounded_and_goes() -> None:
    files = Files(a=b"a" * 40, b=b"b" * 40, c=b"c" * 40, d=b"d" * 101)
    scratch = Scratch(limit=100)
    paths = {name: scratch.fetch(files, 1, files.artifact(name)) for name in "ab"}
    assert stat.S_IMODE(scratch.folder().stat().st_mode) == 0o700
    scratch.fetch(files, 1, files.artifact("a"))  # used again: b is the older one now
    assert files.asked == ["a", "b"]
    scratch.fetch(files, 1, files.artifact("c"))
    assert paths["a"].is_file()
    assert not paths["b"].exists()
    assert scratch.bytes == 80
    with pytest.raises(TooLargeError, match="looked at"):
        scratch.fetch(files, 1, files.artifact("d"))
    folder = scratch.folder()
    scratch.close()
    assert not folder.exists()
    with pytest.raises(StudioqError, match="ending"):
        scratch.fetch(files, 1, files.artifact("a"))


def test_what_a_killed_program_has_left_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / f"studioq-tui-{ended.pid}-abc"
    lives = tmp_path / f"studioq-tui-{os.getpid()}-abc"
    other = tmp_path / "studioq-tui-notes"
    for folder in (left, lives, other):
        (folder / "x").mkdir(parents=True)
    scratch = Scratch(parent=tmp_path)
    made = scratch.folder()
    assert set(tmp_path.iterdir()) == {lives, other, made}
    scratch.close()
    assert set(tmp_path.iterdir()) == {lives, other}


def test_what_is_opened_elsewhere_stays() -> None:
    files = Files(a=b"a" * 60, b=b"b" * 40, c=b"c" * 40)
    scratch = Scratch(limit=100)
    kept = scratch.fetch(files, 1, files.artifact("a"), pin=True)
    scratch.fetch(files, 1, files.artifact("b"))
    scratch.fetch(files, 1, files.artifact("c"))
    assert kept.is_file()
    assert scratch.bytes == 100
    scratch.close()


def test_a_file_with_another_hash_leaves_nothing() -> None:
    files = Files(a=b"a")
    scratch = Scratch()
    with pytest.raises(StudioqError, match="SHA-256"):
        scratch.fetch(files, 1, files.artifact("a") | {"sha256": "0" * 64})
    assert list(scratch.folder().iterdir()) == []
    scratch.close()


def test_names_that_are_not_safe_are_not_written() -> None:
    files = Files(**{"..": b"a"})
    scratch = Scratch()
    with pytest.raises(StudioqError, match="not safe"):
        scratch.fetch(files, 1, files.artifact(".."))
    scratch.close()


def test_saving_tells_each_per_cent_once_and_can_be_stopped() -> None:
    told: list[str] = []
    files: Any = Files(a=b"a" * 50, b=b"b" * 50)
    source = Counting(files, 100, told.append, lambda: len(told) < 2)
    assert b"".join(source.blocks(1, "a")) == b"a" * 50
    assert b"".join(source.blocks(1, "b")) == b"b" * 50
    assert told == ["saving a · 50 %", "saving b · 100 %"]
    with pytest.raises(StoppedError):
        list(source.blocks(1, "a"))


def test_folders(tmp_path: Path) -> None:
    assert saving.default_folder(4) == "./job-4"
    assert saving.folder_of(f" {tmp_path}/new ") == tmp_path / "new"
    written(tmp_path, b"", "file")
    for text in ("", "  ", str(tmp_path / "file")):
        with pytest.raises(UsageError):
            saving.folder_of(text)


def test_a_viewer_is_started_only_where_somebody_sees_it() -> None:
    there: outside.Which = lambda name: f"/usr/bin/{name}"  # noqa: E731
    nowhere: outside.Which = lambda _: None  # noqa: E731
    assert outside.opener({}, "darwin", there) == "/usr/bin/open"
    assert outside.opener({"DISPLAY": ":0"}, "linux", there) == "/usr/bin/xdg-open"
    for environ, platform, which, words in (
        ({"SSH_CONNECTION": "x"}, "darwin", there, "ssh"),
        ({}, "linux", there, "no display"),
        ({"WAYLAND_DISPLAY": "w"}, "linux", nowhere, "not on the PATH"),
    ):
        with pytest.raises(UsageError, match=words):
            outside.opener(environ, platform, which)


def test_the_users_editor_comes_before_the_usual_pagers() -> None:
    there: outside.Which = lambda name: None if name == "gone" else name  # noqa: E731
    assert outside.reader({"EDITOR": "vim -R", "PAGER": "less"}, there) == ["vim", "-R"]
    assert outside.reader({"EDITOR": "gone", "PAGER": "more"}, there) == ["more"]
    assert outside.reader({"EDITOR": "'"}, there) == ["less"]
    with pytest.raises(UsageError, match="no editor or pager"):
        outside.reader({}, lambda _: None)


def test_a_reader_gets_the_file(tmp_path: Path) -> None:
    script = "import sys, shutil; shutil.copy(sys.argv[1], sys.argv[1] + '.read')"
    outside.read_file([sys.executable, "-c", script], written(tmp_path, b"x", "a.txt"))
    assert (tmp_path / "a.txt.read").read_bytes() == b"x"


@pytest.mark.parametrize("environ", [{}, {"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_a_terminal_that_draws_nothing_is_not_asked(environ: dict[str, str]) -> None:
    assert not terminal.may_ask(environ)
    assert terminal.prepare(environ).drawing is Drawing.HALF_CELLS


def test_a_pipe_is_not_asked() -> None:
    assert terminal.may_ask({"TERM": "xterm-kitty"})
    assert terminal.prepare({"TERM": "xterm-kitty"}) == terminal.Terminal()


@pytest.mark.parametrize(
    ("answer", "drawing"),
    [
        (b"\x1b_Gi=31;OK\x1b\\\x1b[?62;c", Drawing.KITTY),
        (b"\x1b[?62;4;22c", Drawing.SIXEL),
        (b"\x1b_Gi=31;OK\x1b\\\x1b[?65;1;4c", Drawing.SIXEL),
        (b"\x1b_Gi=31;EINVAL\x1b\\\x1b[?1;2c", Drawing.HALF_CELLS),
        (b"\x1b[?1;14;64c", Drawing.HALF_CELLS),
    ],
)
def test_a_terminal_is_believed(answer: bytes, drawing: Drawing) -> None:
    ours, theirs = pty.openpty()

    def reply() -> None:
        asked = b""
        while not asked.endswith(b"\x1b[c"):
            asked += os.read(ours, 100)
        os.write(ours, answer)

    replying = threading.Thread(target=reply)
    replying.start()
    try:
        assert terminal.drawing_of(terminal.ask(theirs, theirs, patience=20)) is drawing
    finally:
        replying.join()
        os.close(ours)
        os.close(theirs)


def test_a_silent_terminal_is_not_waited_for() -> None:
    ours, theirs = pty.openpty()
    assert terminal.ask(theirs, theirs, patience=0) == ""
    assert terminal.drawing_of("") is Drawing.HALF_CELLS
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(
    ("size", "cell"),
    [((24, 80, 720, 480), (9, 20)), ((24, 80, 0, 0), (10, 20)), ((0, 0, 0, 0), (10, 20))],
)
def test_the_size_of_a_cell(size: tuple[int, int, int, int], cell: tuple[int, int]) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size))
    assert terminal.cell_size(theirs) == cell
    os.close(ours)
    os.close(theirs)
