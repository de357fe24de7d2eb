"""The one main screen: meters, jobs, detail.

The rule this module protects: widgets know the job that they show and nothing of each other; what
one says is passed on here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.screen import Screen
from textual.widgets import Footer, Input

from daemon.errors import StudioqError
from tui import actions
from tui.actions import Action
from tui.confirm import Confirm
from tui.detail import Detail
from tui.feed import DaemonCame, DaemonWent, Feed, JobsCame, News, StatusCame
from tui.jobs.board import Board
from tui.jobs.query import parse_query
from tui.jobs.table import JobTable, utc_now
from tui.meters import Meters
from tui.pane import Connect

if TYPE_CHECKING:
    from daemon.client.answers import JobLine, Status


class MainScreen(Screen[None]):
    """Meters at the top, jobs and detail side by side or one above the other, keys below."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", id="filter"),
        Binding("a", "mine", "All/mine", show=False, id="mine"),
        Binding("l", "tab('log')", "Log", id="tab.log"),
        Binding("m", "tab('metrics')", "Metrics", id="tab.metrics"),
        Binding("o", "tab('outputs')", "Outputs", id="tab.outputs"),
        Binding("i", "tab('summary')", "Summary", show=False, id="tab.summary"),
        Binding("left_square_bracket", "step(-1)", "Tab before", show=False, id="tab.before"),
        Binding("right_square_bracket", "step(1)", "Next tab", show=False, id="tab.next"),
        Binding("ctrl+n,plus", "new", "New", key_display="^n", id="new"),
        Binding("d", "duplicate", "Duplicate", show=False, id="job.duplicate"),
        Binding("x", "act('cancel')", "Cancel", id="job.cancel"),
        Binding("F", "act('finish')", "Finish", show=False, id="job.finish"),
        Binding("h", "act('hold')", "Hold/release", show=False, id="job.hold"),
        Binding("r", "act('retry')", "Retry", show=False, id="job.retry"),
        Binding("R", "act('repeat')", "Repeat", show=False, id="job.repeat"),
        Binding("u", "raise", "Raise priority", show=False, id="job.raise"),
        Binding("U", "lower", "Lower priority", show=False, id="job.lower"),
        Binding("z", "zoom", "Zoom", show=False, id="zoom"),
    ]

    def __init__(self, connect: Connect) -> None:
        super().__init__()
        self._connect = connect
        self.board = Board()
        self.status: Status | None = None
        self._mine = False
        self._feed = Feed(connect, self._tell)

    def compose(self) -> ComposeResult:
        """Lay the screen out; the style sheet places the parts by width."""
        yield Meters(id="meters")
        with Container(id="body"):
            with Vertical(id="queue"):
                yield JobTable(self.board, id="jobs")
                yield Input(placeholder="user:ana kind:train state:failed words", id="filter")
            yield Detail(self._connect, id="detail")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to ask the daemon."""
        self.query_one("#queue").border_title = "Jobs"
        self.query_one("#detail").border_title = "no job"
        self.query_one("#filter").display = False
        self.query_one(JobTable).focus()
        self.run_worker(self._feed.run, thread=True, group="feed", exit_on_error=True)

    def on_unmount(self) -> None:
        """Let the thread end."""
        self._feed.close()

    # What the daemon says

    def _tell(self, news: News) -> None:
        """Pass news on to the thread that draws."""
        if self.app.is_running:
            self.app.call_from_thread(self._heard, news)

    def _heard(self, news: News) -> None:
        match news:
            case JobsCame():
                self._take(news)
            case StatusCame():
                self.status = self.query_one(Meters).status = news.status
                self.refresh_bindings()
            case DaemonWent():
                said = f"{news.error.message}; trying again …"
                self.query_one(Meters).trouble = said
            case DaemonCame():
                self.query_one(Meters).trouble = None
                if news.again:
                    self.notify("the daemon answers again")

    def _take(self, news: JobsCame) -> None:
        if news.anew:
            self.board.clear()
        table = self.query_one(JobTable)
        before = table.job
        self.board.take(news.jobs, utc_now())
        table.board_changed()
        self._entitle()
        job = table.job
        if job is not None and before is not None and job["id"] == before["id"] and job != before:
            self.query_one(Detail).update_job(job)
            self.refresh_bindings()

    def _entitle(self) -> None:
        shown, known = len(self.board.shown), len(self.board)
        text = self.query_one("#filter", Input).value.strip()
        said = " · ".join(filter(None, ("mine" if self._mine else "", text)))
        count = f"{shown} of {known}" if shown != known else f"{known}"
        self.query_one("#queue").border_subtitle = f"{count} · {said}" if said else count

    # The cursor and the detail

    def on_job_table_selected(self, event: JobTable.Selected) -> None:
        """Show the job under the cursor."""
        job = None if event.number is None else self.board.get(event.number)
        detail = self.query_one(Detail)
        detail.border_title = (
            "no job" if job is None else f"{job['id']} · {job['name'] or job['kind']}"
        )
        detail.show_job(job)
        self.refresh_bindings()

    def on_job_table_opened(self) -> None:
        """Go into the detail; where there is room for one alone, show it alone."""
        if self.has_class("-narrow"):
            self.add_class("-detail-alone")
        self.query_one(Detail).focus_tab()

    @property
    def job(self) -> JobLine | None:
        """The job under the cursor."""
        return self.query_one(JobTable).job

    def action_tab(self, name: str) -> None:
        """Go to a tab of the detail."""
        self.query_one(Detail).open(name)

    def action_step(self, by: int) -> None:
        """Go to the next tab or the one before."""
        self.query_one(Detail).step(by)

    def action_zoom(self) -> None:
        """Give the whole screen to the part with the keyboard, or divide it again."""
        zoomed = [name for name in ("-jobs-alone", "-detail-alone") if self.has_class(name)]
        self.remove_class(*zoomed)
        if not zoomed:
            in_detail = self.query_one(Detail).has_focus_within
            self.add_class("-detail-alone" if in_detail else "-jobs-alone")

    # Filter

    def action_filter(self) -> None:
        """Open the filter line."""
        line = self.query_one("#filter", Input)
        line.display = True
        line.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        if event.input.id == "filter":
            self._filter(event.value)

    def _filter(self, text: str) -> None:
        self.board.show(utc_now(), query=parse_query(text, mine=self._mine))
        self.query_one(JobTable).board_changed()
        self._entitle()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the filter and go back to the jobs."""
        if event.input.id == "filter":
            event.input.display = bool(event.value)
            self.query_one(JobTable).focus()

    def key_escape(self) -> None:
        """Leave the filter line without a filter; else come back to the jobs."""
        line = self.query_one("#filter", Input)
        if line.has_focus or line.value:
            line.value = ""
            line.display = False
        self.remove_class("-detail-alone", "-jobs-alone")
        self.query_one(JobTable).focus()

    def action_mine(self) -> None:
        """Show one's own jobs alone, or everybody's."""
        self._mine = not self._mine
        self._filter(self.query_one("#filter", Input).value)

    # Doing something with the job

    @property
    def admin(self) -> bool:
        """Whether this person may change everybody's jobs."""
        return bool(self.status and self.status["me"]["admin"])

    def offered(self) -> dict[str, Action]:
        """Return what may be done with the job under the cursor, by name."""
        return {action.name: action for action in actions.offered(self.job, admin=self.admin)}

    def _named(self, name: str) -> Action | None:
        """Return an action that is offered; hold stands for release where a job is held."""
        offered = self.offered()
        return offered.get(name) or (offered.get("release") if name == "hold" else None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide what may not be done now."""
        if action == "act":
            return self._named(str(parameters[0])) is not None
        if action in ("raise", "lower"):
            return self._changed_priority(action) is not None
        if action == "duplicate":
            return self.job is not None and self.job["readable"]
        if action == "tab":
            return any(tab == parameters[0] for tab in self._tab_names())
        return True

    def _tab_names(self) -> list[str]:
        from tui.tabs import TABS

        return [tab.name for tab in TABS]

    def _changed_priority(self, action: str) -> Action | None:
        if self.job is None:
            return None
        change = actions.raised if action == "raise" else actions.lowered
        return change(self.job, admin=self.admin)

    def action_act(self, name: str) -> None:
        """Do something with the job under the cursor; ask first where something would be lost."""
        action = self._named(name)
        if action is not None and self.job is not None:
            self.do(action, self.job)

    def action_raise(self) -> None:
        """Give the job the next higher priority."""
        self._change_priority("raise")

    def action_lower(self) -> None:
        """Give the job the next lower priority."""
        self._change_priority("lower")

    def _change_priority(self, action: str) -> None:
        change = self._changed_priority(action)
        if change is not None and self.job is not None:
            self.do(change, self.job)

    def action_new(self) -> None:
        """Fill in a form for a new job."""
        self._fill_in(None)

    def action_duplicate(self) -> None:
        """Fill in the form with what the job under the cursor was asked."""
        if self.job is not None:
            self._fill_in(self.job["id"])

    def _fill_in(self, start_from: int | None) -> None:
        from tui.forms.screen import NewJobScreen

        def queued(number: int | None) -> None:
            if number is not None:
                self._feed.hurry()
                self.notify(f"job {number} is queued")

        self.app.push_screen(NewJobScreen(self._connect, start_from=start_from), queued)

    def do(self, action: Action, job: JobLine) -> None:
        """Run an action, after its question if it has one."""
        question = actions.question(action, job)
        if question is None:
            self._run(action, job)
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._run(action, job)

        self.app.push_screen(Confirm(question), answered)

    @work(thread=True, group="actions")
    def _run(self, action: Action, job: JobLine) -> None:
        try:
            with self._connect() as client:
                said = action.run(client, job)
        except StudioqError as error:
            self.app.call_from_thread(partial(self._refused, error))
            return
        self._feed.hurry()
        self.app.call_from_thread(partial(self.notify, said))

    def _refused(self, error: StudioqError) -> None:
        remedy = f"\n→ {error.remedy}" if error.remedy else ""
        self.notify(f"{error.message}{remedy}", severity="error", timeout=10, markup=False)

    def look_seldom(self, *, seldom: bool) -> None:
        """Ask the daemon less often while another window has the keyboard."""
        self._feed.slow_down(slow=seldom)
