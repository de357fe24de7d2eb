"""The metrics tab of a job's detail.

The rule this module protects: what has arrived stays until another job is shown. A daemon that is
away, or a worker that answers late, changes nothing that is on the screen.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static
from textual.worker import get_current_worker

from daemon.errors import NotFoundError
from tui.metrics import notes
from tui.metrics.arrangement import fits, packed
from tui.metrics.options import Options
from tui.metrics.picker import JobPicker
from tui.metrics.specs import Difference, differences
from tui.pane import Connect, JobPane

if TYPE_CHECKING:
    from daemon.client.answers import JobLine
    from tui.metrics.board import Board
    from tui.metrics.charts import Chart
    from tui.metrics.reading import Known, Look

# Seconds between two looks at a job that runs, or at a daemon that is away.
EVERY = 0.5
_CHOICE_LINES = 2


class MetricsPane(JobPane, can_focus=True):
    """The curves of a job, and of another one beside them."""

    HELP = """\
    ## Metrics

    What the job has measured, over its steps; where there is no room for plots, as a table. The
    numbers in the titles are the latest measured ones, also while the curves are smoothed. A
    vertical line marks the step that a further attempt went on from.

    `c` compares with another job of the same kind: its curves are dashed, and a table below says in
    what the specs differ. `c` again or `escape` ends it.

    `1` to `9` show and hide a plot; the line on top has their numbers, hidden ones in parentheses.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "compare", "Compare", id="metrics.compare"),
        Binding("escape", "end_comparison", "End comparison", show=False, id="metrics.alone"),
        Binding("L", "switch('log')", "Log scale", id="metrics.log"),
        Binding("S", "switch('smooth')", "Smooth", id="metrics.smooth"),
        Binding("t", "switch('tail')", "Last part", show=False, id="metrics.tail"),
        Binding("v", "switch('table')", "Values", show=False, id="metrics.values"),
        Binding("up", "scroll_board('up')", "Up", show=False, id="metrics.up"),
        Binding("down", "scroll_board('down')", "Down", show=False, id="metrics.down"),
        Binding("pageup", "scroll_board('page_up')", "Page up", show=False, id="metrics.page-up"),
        Binding(
            "pagedown", "scroll_board('page_down')", "Page down", show=False, id="metrics.page-down"
        ),
        Binding("home", "scroll_board('home')", "Top", show=False, id="metrics.top"),
        Binding("end", "scroll_board('end')", "Bottom", show=False, id="metrics.bottom"),
        *(
            Binding(str(n), f"toggle_plot({n})", f"Plot {n}", show=False, id=f"metrics.plot-{n}")
            for n in range(1, 10)
        ),
    ]

    DEFAULT_CSS = """
    MetricsPane {
        height: 1fr;
        layout: vertical;
        .choices { height: auto; padding: 0 1; }
        .status { height: auto; max-height: 2; padding: 0 1; color: $text-warning; }
        .empty { height: 1fr; content-align: center middle; text-align: center; padding: 0 2; }
        Board { height: 1fr; }
    }
    """

    class Looked(Message):
        """A worker thread has looked at the daemon."""

        def __init__(self, turn: int, look: Look) -> None:
            super().__init__()
            self.turn = turn
            self.look = look

    def __init__(self, connect: Connect, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(connect, id=id)
        self.options = Options()
        self._number: int | None = None
        self._this: Known | None = None
        self._other: Known | None = None
        self._other_number: int | None = None
        self._trouble: str | None = None
        self._hopeless = False
        # Answers to questions of earlier turns are not listened to.
        self._turn = 0
        self._asking = False
        self._timer: Timer | None = None
        self._board: Board | None = None
        self._choices = Static(classes="choices")
        self._status = Static(classes="status", markup=False)
        self._empty = Static(notes.NO_JOB, classes="empty", markup=False)

    def compose(self) -> ComposeResult:
        """Put the choices above what there is to see."""
        yield self._choices
        yield self._status
        yield self._empty

    def on_mount(self) -> None:
        """Begin to look at a job that was shown before there was a screen."""
        self._timer = self.set_interval(EVERY, self._tick, pause=True)
        self._begin()

    # What the app tells

    def show_job(self, job: JobLine | None) -> None:
        """Show another job; rest with None, and keep what is known of the last one."""
        super().show_job(job)
        if job is not None and job["id"] != self._number:
            self._number = job["id"]
            self._this, self._trouble, self._hopeless = None, None, False
            self._forget_other()
        if self._timer is not None:
            self._begin()

    def update_job(self, job: JobLine) -> None:
        """Take the changed line; a job that begins or ends has more to tell."""
        changed = self.job is None or self.job["state"] != job["state"]
        super().update_job(job)
        if changed and self._this is not None:
            self._this = replace(self._this, complete=False)
        if self._timer is not None:
            self._tick()
            self._refresh()

    # Asking

    def _begin(self) -> None:
        assert self._timer is not None  # noqa: S101
        self._turn += 1
        self._asking = False
        if self.job is None:
            self._timer.pause()
            return
        self._timer.resume()
        self._tick()
        self._refresh()

    def _tick(self) -> None:
        if self.job is None or self._asking or not self.app.app_focus or not self._has_to_ask():
            return
        self._asking = True
        self._ask(self._turn, self.job, self._this, self._other, self._other_number)

    def _has_to_ask(self) -> bool:
        if self.job is None or self._hopeless or not self.job["readable"]:
            return False
        waits_for_other = self._other_number is not None and (
            self._other is None or not self._other.complete
        )
        return self._this is None or not self._this.complete or waits_for_other

    @work(thread=True, exclusive=True)
    def _ask(
        self, turn: int, job: JobLine, this: Known | None, other: Known | None, beside: int | None
    ) -> None:
        from tui.metrics.reading import Known, look

        worker = get_current_worker()
        if other is None and beside is not None:
            other = Known(number=beside)
        looked = look(
            self.connect,
            this or Known(number=job["id"]),
            other,
            at_rest=job["state"] != "running",
        )
        if not worker.is_cancelled:
            self.post_message(self.Looked(turn, looked))

    @on(Looked)
    def _take(self, message: Looked) -> None:
        if message.turn != self._turn:
            return
        look = message.look
        self._asking = False
        before = (self._this, self._other, self._trouble)
        self._this, self._other = look.this, look.other
        self._trouble = None if look.error is None else notes.trouble(look.error)
        self._hopeless = isinstance(look.error, NotFoundError)
        if look.other_error is not None and look.other is not None:
            self._forget_other()
            self._trouble = notes.no_comparison(look.other.number, look.other_error)
        if before != (self._this, self._other, self._trouble):
            self._refresh()

    # Showing

    @on(events.Resize)
    def _resized(self) -> None:
        self._refresh()

    def _refresh(self) -> None:
        """Show what is known, or why there is nothing."""
        if self.job is None or not self.is_attached:
            return
        this = self._this
        filled = this is not None and bool(this.curves.series) and self.job["readable"]
        self._empty.display = not filled
        if filled and this is not None:
            self._show_board(this)
        else:
            self._empty.update(self._reason(self.job))
            if self._board is not None:
                self._board.display = False
        self._show_lines()

    def _reason(self, job: JobLine) -> str:
        """Return why there is nothing to see."""
        if not job["readable"]:
            return notes.unreadable(job)
        if self._trouble is not None:
            return self._trouble
        return notes.READING if self._this is None else notes.empty(job)

    def _show_board(self, this: Known) -> None:
        from tui.metrics.board import Board
        from tui.metrics.drawing import Pair

        if self._board is None:
            self._board = Board()
            self.mount(self._board)
        self._board.display = True
        other = self._other
        pair = Pair(
            this=this.curves,
            number=this.number,
            other=None if other is None else other.curves,
            other_number=0 if other is None else other.number,
        )
        self._board.show(
            pair,
            self.options,
            differences=self._differences(),
            small=not fits(self.size.width, self.size.height),
        )

    def _differences(self) -> list[Difference] | None:
        this, other = self._this, self._other
        if this is None or other is None or this.spec is None or other.spec is None:
            return None
        return differences(this.spec, other.spec)

    def _show_lines(self) -> None:
        """Show the plots' numbers, and what is not as usual."""
        board = self._board
        filled = board is not None and board.display
        charts = board.charts if board is not None and filled and not board.tabled else []
        self._choices.display = bool(charts)
        self._choices.update(self._numbered(charts))
        said = [*self.options.words()] if filled else []
        if self._other_number is not None:
            said.append(notes.compared(self._other_number, self._differences()))
        if self._trouble is not None and filled:
            said.append(self._trouble)
        self._status.display = bool(said)
        self._status.update(" · ".join(said))

    def _numbered(self, charts: list[Chart]) -> Content:
        """Return the plots' numbers and titles; of hidden ones the number alone if that fits."""
        shown = [self.options.shows(chart) for chart in charts]
        full = [f"{number} {chart.title}" for number, chart in enumerate(charts[:9], 1)]
        long = [word if on else f"({word})" for word, on in zip(full, shown, strict=False)]
        short = [word if on else f"({word[0]})" for word, on in zip(full, shown, strict=False)]
        width = self.size.width - 2
        words = long if packed(long, width, _CHOICE_LINES) else short
        lines = packed(words, width, len(words)) or []
        styled = [
            Content("  ").join(
                Content.styled(words[index], "bold" if shown[index] else "dim") for index in line
            )
            for line in lines
        ]
        return Content("\n").join(styled)

    # Keys

    def action_switch(self, name: str) -> None:
        """Turn one of the options on or off."""
        self.options = self.options.switched(name)
        self._refresh()

    def action_toggle_plot(self, number: int) -> None:
        """Show or hide a plot."""
        if self._board is not None:
            self.options = self.options.toggled(self._board.charts, number)
            self._refresh()

    def action_scroll_board(self, where: str) -> None:
        """Scroll what does not fit."""
        if self._board is not None:
            getattr(self._board, f"scroll_{where}")(animate=False)

    def action_compare(self) -> None:
        """Choose a job to compare with, or end the comparison."""
        if self._other_number is not None:
            self.action_end_comparison()
        elif self.job is not None:
            picker = JobPicker(self.connect, self.job["kind"], self.job["id"])
            self.app.push_screen(picker, partial(self._compare, self.job["id"]))

    def action_end_comparison(self) -> None:
        """Show the job alone again."""
        self._forget_other()
        self._begin()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Leave escape to others while nothing is compared, and do not compare the unreadable."""
        if action == "end_comparison":
            return self._other_number is not None
        if action == "compare":
            return self.job is not None and self.job["readable"]
        return True

    def _compare(self, number: int, other: JobLine | None) -> None:
        """Compare job ``number`` with the chosen one, if it is still shown."""
        if other is not None and number == self._number:
            self._other_number = other["id"]
            self._begin()

    def _forget_other(self) -> None:
        self._other, self._other_number = None, None
