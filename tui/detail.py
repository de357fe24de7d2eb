"""The detail of the job under the cursor: its tabs, of which one works at a time.

The rule this module protects: what is not looked at asks the daemon for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import TabbedContent, TabPane

from tui.pane import Connect, JobPane
from tui.tabs import TABS, Tab

if TYPE_CHECKING:
    from daemon.client.answers import JobLine


class Detail(Vertical):
    """Tabs of one job."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Jobs", show=False, id="detail.leave"),
    ]

    def __init__(self, connect: Connect, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._connect = connect
        self._job: JobLine | None = None
        self._focus_next = False

    def compose(self) -> ComposeResult:
        """Make the tabs, the first with its pane; the others get theirs when they are opened."""
        with TabbedContent(id="tabs"):
            for tab in TABS:
                with TabPane(tab.title, id=f"tab-{tab.name}"):
                    if tab is TABS[0]:
                        yield tab.make(self._connect)

    @property
    def current(self) -> str:
        """The name of the tab that is shown."""
        return self.query_one(TabbedContent).active.removeprefix("tab-") or TABS[0].name

    def pane(self, name: str) -> JobPane | None:
        """Return the pane of that tab, None if it was never opened."""
        found = self.query_one(f"#tab-{name}", TabPane).query(JobPane)
        return found.first() if found else None

    @property
    def _current_pane(self) -> JobPane | None:
        return self.pane(self.current)

    def show_job(self, job: JobLine | None) -> None:
        """Show another job in the tab that is looked at."""
        self._job = job
        if self._current_pane is not None:
            self._current_pane.show_job(job)

    def update_job(self, job: JobLine) -> None:
        """Take the changed line of the job that is shown."""
        self._job = job
        if self._current_pane is not None:
            self._current_pane.update_job(job)

    def open(self, name: str) -> None:
        """Go to a tab, with the keyboard in it."""
        if self.current == name:
            self.focus_tab()
            return
        self._focus_next = True
        self.query_one(TabbedContent).active = f"tab-{name}"

    def step(self, by: int) -> None:
        """Go to the next tab or the one before."""
        names = [tab.name for tab in TABS]
        self.open(names[(names.index(self.current) + by) % len(names)])

    def focus_tab(self) -> None:
        """Give the keyboard to what the tab shows."""
        pane = self._current_pane
        if pane is None:
            return
        inner = next((child for child in pane.query("*") if child.focusable), None)
        target = pane if pane.can_focus else inner
        if target is not None:
            target.focus()

    async def on_tabbed_content_tab_activated(self, event: TabbedContent.TabActivated) -> None:
        """Let the new tab work and the others rest."""
        event.stop()
        for tab in TABS:
            pane = self.pane(tab.name)
            if tab.name == self.current:
                pane = pane or await self._made(tab)
                pane.show_job(self._job)
            elif pane is not None and pane.job is not None:
                pane.show_job(None)
        if self._focus_next:
            self._focus_next = False
            self.focus_tab()

    async def _made(self, tab: Tab) -> JobPane:
        pane = tab.make(self._connect)
        await self.query_one(f"#tab-{tab.name}", TabPane).mount(pane)
        return pane

    def action_leave(self) -> None:
        """Go back to the table."""
        self.screen.query_one("#jobs").focus()
