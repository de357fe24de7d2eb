"""What can be done with the files of the outputs tab: save, copy the path, open, read in an editor.

The rule this module protects: nothing of this happens in the thread that draws, except handing the
terminal to an editor; and each ends with a sentence, whether it worked or not.
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.worker import get_current_worker

from daemon.client.answers import Artifact
from daemon.errors import StudioqError
from daemon.wording import counted
from tui.outputs import outside, saving
from tui.outputs.files import Look, Row, fetch_command
from tui.outputs.loading import Problem, attempt, explained
from tui.outputs.messages import ReadyOutside, Saved, SaveTold
from tui.outputs.save_screen import SaveScreen
from tui.outputs.saving import Order
from tui.outputs.scratch import Scratch
from tui.pane import Connect, JobPane

_MOST_REMEMBERED = 1_000
_TEXTS = (Look.TEXT, Look.STREAM)


class KeepingPane(JobPane):
    """A tab with a current row, whose files can be kept and used elsewhere."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "save", "Save", id="outputs.save"),
        Binding("S", "save_all", "Save all", show=False, id="outputs.save_all"),
        Binding("y", "copy_path", "Copy path", show=False, id="outputs.copy"),
        Binding("O", "open", "Open", id="outputs.open"),
        Binding("e", "edit", "Editor", id="outputs.edit"),
    ]

    def __init__(self, connect: Connect, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(connect, id=id)
        self.scratch = Scratch()
        self.rows: list[Row] = []
        self.row: Row | None = None
        self.saved: OrderedDict[tuple[int, str], Path] = OrderedDict()
        self._saving = False

    def on_unmount(self) -> None:
        """Remove what was fetched only to be looked at."""
        self.scratch.close()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what can be done with the row."""
        artifact = self.row.artifact if self.row else None
        match action:
            case "save" | "open" | "copy_path":
                return artifact is not None
            case "save_all":
                return any(row.artifact for row in self.rows)
            case "edit":
                return self.row is not None and self.row.look in _TEXTS
        return super().check_action(action, parameters)

    def saved_path(self, row: Row) -> Path | None:
        """Return where the row's file was saved, if it is still there."""
        path = self.saved.get((self.job["id"], row.key)) if self.job else None
        return path if path is not None and path.is_file() else None

    def tell(self, text: str) -> None:
        """Show one line of what goes on; the tab knows where."""

    def shown_text(self) -> str:
        """Return the text that is shown; the tab knows it."""
        return ""

    def text_changed(self) -> None:
        """Show the paths anew; the tab knows where."""

    # Saving

    def action_save(self) -> None:
        """Ask for a folder and save the file there."""
        if self.row is not None and self.row.artifact is not None:
            self._ask([self.row.artifact], self.row.title)

    def action_save_all(self) -> None:
        """Ask for a folder and save all files there, checkpoints included."""
        files = [row.artifact for row in self.rows if row.artifact is not None]
        if files:
            self._ask(files, f"all of {counted(len(files), 'file')}")

    def _ask(self, files: Sequence[Artifact], what: str) -> None:
        if self.job is None:
            return
        if self._saving:
            self.notify("one saving is still going on", severity="warning", markup=False)
            return
        number = self.job["id"]
        screen = SaveScreen(what, saving.default_folder(number))
        self.app.push_screen(screen, lambda typed: self._save_in(number, files, typed))

    def _save_in(self, number: int, files: Sequence[Artifact], typed: str | None) -> None:
        if typed is None:
            return
        try:
            folder = saving.folder_of(typed)
        except StudioqError as error:
            self._complain(explained(error))
            return
        self._saving = True
        self._save(Order(number=number, files=files, folder=folder))

    @work(thread=True, group="outputs-save")
    def _save(self, order: Order) -> None:
        worker = get_current_worker()

        def told(text: str) -> None:
            self.post_message(SaveTold(text=text))

        found = attempt(
            self.connect,
            lambda client: saving.save(client, order, told, lambda: not worker.is_cancelled),
        )
        self.post_message(Saved(order=order, found=found))

    @on(SaveTold)
    def _save_told(self, event: SaveTold) -> None:
        self.tell(event.text)

    @on(Saved)
    def _save_ended(self, event: Saved) -> None:
        self._saving = False
        self.tell("")
        if isinstance(event.found, Problem):
            self._complain(event.found.message)
            return
        for file in event.found:
            self.saved[event.order.number, file.name] = file.path
        while len(self.saved) > _MOST_REMEMBERED:
            self.saved.popitem(last=False)
        self.text_changed()
        self.notify(saving.summary(event.order, event.found), markup=False)

    # Elsewhere

    def action_copy_path(self) -> None:
        """Copy the path of the saved file, else the command that fetches it."""
        if self.job is None or self.row is None or self.row.artifact is None:
            return
        path = self.saved_path(self.row)
        text = str(path) if path else fetch_command(self.job["id"], self.row.key)
        self.app.copy_to_clipboard(text)
        self.notify(f"copied: {text}", markup=False)

    def action_open(self) -> None:
        """Open the file with the system's viewer."""
        try:
            program = outside.opener(os.environ, sys.platform)
        except StudioqError as error:
            self._complain(explained(error))
            return
        self._fetch_for([program], here=False)

    def action_edit(self) -> None:
        """Show the text in the user's editor or pager."""
        try:
            command = outside.reader(os.environ)
        except StudioqError as error:
            self._complain(explained(error))
            return
        self._fetch_for(command, here=True)

    def _fetch_for(self, command: list[str], *, here: bool) -> None:
        if self.job is None or self.row is None:
            return
        self.tell(f"fetching {self.row.title} …")
        self._fetch(self.job["id"], self.row.artifact, command, here=here, text=self.shown_text())

    @work(thread=True, group="outputs-outside", exclusive=True)
    def _fetch(
        self, number: int, artifact: Artifact | None, command: list[str], *, here: bool, text: str
    ) -> None:
        if artifact is None:
            path = attempt(self.connect, lambda _: self._written(number, text))
        else:
            path = attempt(
                self.connect,
                lambda client: self.scratch.fetch(client, number, artifact, pin=not here),
            )
        if not get_current_worker().is_cancelled:
            self.post_message(ReadyOutside(command=command, here=here, path=path))

    def _written(self, number: int, text: str) -> Path:
        """Return a file with the text that is being made, as far as it is."""
        path = self.scratch.folder() / f"text-so-far-{number}.txt"
        path.write_text(text, "utf-8", "backslashreplace")
        return path

    @on(ReadyOutside)
    def _ready_outside(self, event: ReadyOutside) -> None:
        self.tell("")
        if isinstance(event.path, Problem):
            self._complain(event.path.message)
        elif event.here:
            self._read(event.command, event.path)
        else:
            self._start(event.command, event.path)

    def _read(self, command: list[str], path: Path) -> None:
        """Hand the terminal over until the program ends."""
        try:
            with self.app.suspend():
                outside.read_file(command, path)
        except SuspendNotSupported:
            self._complain(f"{command[0]} cannot have this terminal; s saves the file")
        except OSError as error:
            self._complain(f"{command[0]} did not start: {error.strerror or error}")

    def _start(self, command: list[str], path: Path) -> None:
        try:
            outside.open_file(command[0], path)
        except OSError as error:
            self._complain(f"{command[0]} did not start: {error.strerror or error}")
        else:
            self.notify(f"opened with {Path(command[0]).name}: {path.name}", markup=False)

    def _complain(self, text: str) -> None:
        self.notify(text, severity="error", markup=False)
