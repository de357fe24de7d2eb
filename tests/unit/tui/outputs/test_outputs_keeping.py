"""What is done with files from the tab: saved, copied, opened, read elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.unit.tui.conftest import Studio
from tests.unit.tui.outputs.conftest import PICTURES, OutputsApp, ended, in_loop, shown, until
from tui.outputs.save_screen import SaveScreen


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let relative folders be the test's own, and nobody's programs be used."""
    monkeypatch.chdir(tmp_path)
    for name in ("VISUAL", "EDITOR", "PAGER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


@in_loop
async def test_saving_one_and_all(studio: Studio, pictured: int, tmp_path: Path) -> None:
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        await shown(pilot, app, pictured)
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, SaveScreen) and app.focused)
        await pilot.press("enter")
        await until(pilot, lambda: any("1 file saved" in said for said in app.said))
        saved = tmp_path / f"job-{pictured}" / "image-0000.png"
        assert saved.read_bytes() == PICTURES["image-0000.png"]
        assert str(saved) in app.caption
        await pilot.press("y")
        assert app.clipboard == str(saved)
        await pilot.press("S", *"/x", "enter")
        await until(pilot, lambda: any("5 files saved" in said for said in app.said))
        found = (tmp_path / f"job-{pictured}" / "x").iterdir()
        assert {file.name for file in found} == set(PICTURES)
        saved.write_bytes(b"mine")
        await pilot.press("s", "enter")
        await until(pilot, lambda: any("differs" in said for said in app.said))
        assert saved.read_bytes() == b"mine"
        await pilot.press("s", "escape")
        await until(pilot, lambda: not isinstance(app.screen, SaveScreen))


@in_loop
async def test_y_copies_the_command_of_a_file_that_is_not_here(
    studio: Studio, pictured: int
) -> None:
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        await shown(pilot, app, pictured)
        await pilot.press("y")
        assert app.clipboard == f"studioq fetch {pictured} image-0000.png"


def program(folder: Path, name: str, target: Path) -> Path:
    """Write a program that copies the file it is given to ``target``."""
    path = folder / name
    code = f"import shutil, sys; shutil.copy(sys.argv[-1], {str(target) + '.part'!r})\n"
    code += f"import os; os.rename({str(target) + '.part'!r}, {str(target)!r})\n"
    path.write_text(f"#!{sys.executable}\n{code}")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(sys.platform == "darwin", reason="open is the system's own there")
@in_loop
async def test_open_starts_the_viewer_where_there_is_a_display(
    studio: Studio, pictured: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "seen.png"
    program(tmp_path, "xdg-open", target)
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        await shown(pilot, app, pictured)
        await pilot.press("O")
        await until(pilot, lambda: any("no display" in said for said in app.said))
        monkeypatch.setenv("DISPLAY", ":0")
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        await pilot.press("O")
        await until(pilot, target.exists)
        assert target.read_bytes() == PICTURES["image-0000.png"]
        folder = app.pane.scratch.folder()
    assert not folder.exists()


@in_loop
async def test_a_text_goes_to_the_editor_if_the_terminal_can_be_had(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = ended(studio, {"output.txt": b"text", "a.bin": b""}, kind="text", job="infer")
    monkeypatch.setenv("EDITOR", str(program(tmp_path, "ed", tmp_path / "read.txt")))
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        app.pane.files.focus()
        app.show(number)
        await until(pilot, lambda: app.text == "text" or app.pane.viewer.shown != "said")
        await pilot.press("end")
        await until(pilot, lambda: app.text == "text")
        await pilot.press("e")
        await until(pilot, lambda: any("cannot have this terminal" in said for said in app.said))
