"""The app: one screen, a palette, settings.

The rule this module protects: it only puts the parts together; what they do is theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from textual import work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from daemon.errors import StudioqError
from tui.detail import Detail
from tui.help import HelpScreen
from tui.jobs.board import Order
from tui.jobs.columns import COLUMNS
from tui.jobs.table import JobTable
from tui.pane import Connect
from tui.screen import MainScreen
from tui.settings import DARK, Settings, remember_theme
from tui.tabs import TABS


class StudioqApp(App[None]):
    """The queue of one studioq daemon."""

    TITLE = "studioq"
    CSS_PATH = "app.tcss"
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - as Textual declares it
        (0, "-narrow"),
        (110, "-wide"),
    ]

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark,f1", "keys", "Help", id="help"),
        Binding("q", "quit", "Quit", id="quit"),
    ]

    def __init__(
        self,
        connect: Connect,
        *,
        settings: Settings | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__()
        self._connect = connect
        self._settings = settings or Settings()
        self._folder = folder

    def on_mount(self) -> None:
        """Apply the settings and show the main screen."""
        self.set_keymap(dict(self._settings.keymap))
        self.theme = self._settings.theme if self._settings.theme in self.available_themes else DARK
        for problem in self._problems():
            self.notify(problem, severity="warning", timeout=10, markup=False)
        self.theme_changed_signal.subscribe(self, self._keep_theme)
        self.push_screen(MainScreen(self._connect))

    def _problems(self) -> Iterable[str]:
        yield from self._settings.problems
        theme = self._settings.theme
        if theme is not None and theme not in self.available_themes:
            yield f"there is no theme {theme!r}; {', '.join(sorted(self.available_themes))}"

    def _keep_theme(self, theme: Any) -> None:
        if self._folder is not None:
            remember_theme(self._folder, theme.name)

    @property
    def main(self) -> MainScreen | None:
        """The main screen, None while something stands before it or it is not there yet."""
        return self.screen if isinstance(self.screen, MainScreen) else None

    def action_keys(self) -> None:
        """Show every key."""
        focused = self.focused
        about = ""
        while focused is not None and not about:
            about = str(getattr(focused, "HELP", "") or "")
            focused = focused.parent if hasattr(focused, "parent") else None  # type: ignore[assignment]
        self.push_screen(HelpScreen(self._owners(), self._settings.keymap, about))

    def _owners(self) -> list[tuple[str, type[Any]]]:
        owners: list[tuple[str, type[Any]]] = [
            ("Everywhere", StudioqApp),
            ("Jobs and tabs", MainScreen),
            ("Table", JobTable),
            ("Detail", Detail),
        ]
        owners += [(tab.title, tab.load()) for tab in TABS]
        return owners

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Offer what applies now: actions of the job, sorting, themes, the queue's own."""
        if isinstance(screen, MainScreen):
            yield from self._commands(screen)
        yield from super().get_system_commands(screen)

    def _commands(self, screen: MainScreen) -> Iterable[SystemCommand]:
        job = screen.job
        if job is not None:
            for action in screen.offered().values():
                title = f"{action.title}: job {job['id']}"
                yield SystemCommand(title, "", partial(screen.do, action, job))
        for column in COLUMNS:
            order = Order(column=column.name, descending=column.name == "number")
            sort = partial(screen.query_one(JobTable)._sort, order)
            yield SystemCommand(f"Sort by {column.title}", "", sort)
        if screen.admin and screen.status is not None:
            draining = screen.status["draining"]
            title = "Resume: start jobs again" if draining else "Drain: start no more jobs"
            yield SystemCommand(title, "", partial(self._drain, drain=not draining))

    @work(thread=True, group="actions")
    def _drain(self, *, drain: bool) -> None:
        try:
            with self._connect() as client:
                if drain:
                    client.drain()
                else:
                    client.resume()
        except StudioqError as error:
            self.call_from_thread(partial(self.notify, error.message, severity="error"))
            return
        said = "no more jobs start" if drain else "jobs start again"
        self.call_from_thread(partial(self.notify, said))

    def on_app_blur(self) -> None:
        """Another window has the keyboard."""
        if self.main is not None:
            self.main.look_seldom(seldom=True)

    def on_app_focus(self) -> None:
        """The keyboard is back."""
        if self.main is not None:
            self.main.look_seldom(seldom=False)
