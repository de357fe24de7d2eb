"""Choosing the job to compare with.

The rule this module protects: only jobs that can be compared can be chosen, and those that may not
be read stand there and say why not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, Label, OptionList
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from daemon.errors import StudioqError
from tui.metrics.notes import trouble
from tui.metrics.specs import cut
from tui.pane import Connect

if TYPE_CHECKING:
    from daemon.client.answers import JobLine

# Jobs that are offered, the newest first.
MOST_JOBS = 200
_LONGEST_NAME = 40


def words(job: JobLine) -> str:
    """Return a job's line: number, state, user, name and model."""
    name = cut(job["name"] or "", _LONGEST_NAME)
    model = cut(job["model"] or "", _LONGEST_NAME)
    return f"{job['id']:>5}  {job['state']:<9}  {job['user']:<8}  {name or '-'}  {model}".rstrip()


def matching(jobs: Sequence[JobLine], text: str) -> list[JobLine]:
    """Return the jobs whose line holds every word of the text, in any case."""
    wanted = text.casefold().split()
    return [job for job in jobs if all(word in words(job).casefold() for word in wanted)]


class JobPicker(ModalScreen["JobLine | None"]):
    """Asks for another job of the same kind."""

    HELP = """\
    ## Compare with another job

    Type a part of a name, user, state or number, choose with the arrow keys, and press enter.
    Jobs that you may not read stand in the list but cannot be chosen.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back", id="metrics.picker.leave"),
        Binding("down", "move(1)", "Next", show=False, id="metrics.picker.next"),
        Binding("up", "move(-1)", "Previous", show=False, id="metrics.picker.previous"),
    ]

    DEFAULT_CSS = """
    JobPicker {
        align: center middle;
        Vertical {
            width: 90%; max-width: 100; height: 80%; max-height: 30;
            border: round $primary; background: $surface; padding: 0 1;
        }
        Input { background: $boost; margin-bottom: 1; }
        OptionList { height: 1fr; background: $surface; }
    }
    """

    class Listed(Message):
        """The jobs there are, or why they are not known."""

        def __init__(self, jobs: Sequence[JobLine], error: StudioqError | None = None) -> None:
            super().__init__()
            self.jobs = jobs
            self.error = error

    def __init__(self, connect: Connect, kind: str, number: int) -> None:
        super().__init__()
        self._connect = connect
        self._kind = kind
        self._number = number
        self._jobs: Sequence[JobLine] = ()
        self._head = Label(f"Compare job {number} with", markup=False)
        self._text = Input(placeholder="filter by name, user, state or number", compact=True)
        self._list = OptionList(compact=True)

    def compose(self) -> ComposeResult:
        """Put the filter above the list."""
        with Vertical():
            yield self._head
            yield self._text
            yield self._list

    def on_mount(self) -> None:
        """Ask for the jobs."""
        self._list.loading = True
        self._ask()

    @work(thread=True, exclusive=True)
    def _ask(self) -> None:
        worker = get_current_worker()
        try:
            with self._connect() as client:
                answer = client.jobs(everything=True, kind=self._kind, limit=MOST_JOBS)
            listed = self.Listed([job for job in answer["jobs"] if job["id"] != self._number])
        except StudioqError as error:
            listed = self.Listed((), error)
        if not worker.is_cancelled:
            self.post_message(listed)

    @on(Listed)
    def _show_jobs(self, message: Listed) -> None:
        self._jobs = message.jobs
        self._list.loading = False
        if message.error is not None:
            self._head.update(trouble(message.error))
        elif not message.jobs:
            self._head.update(f"There is no other {self._kind} job.")
        self._filter()

    @on(Input.Changed)
    def _filter(self) -> None:
        options = self._list
        options.clear_options()
        options.add_options(option(job) for job in matching(self._jobs, self._text.value))
        options.action_first()

    def action_move(self, step: int) -> None:
        """Move in the list while the filter has the focus."""
        options = self._list
        (options.action_cursor_down if step > 0 else options.action_cursor_up)()

    @on(Input.Submitted)
    def _choose_marked(self) -> None:
        self._list.action_select()

    @on(OptionList.OptionSelected)
    def _choose(self, event: OptionList.OptionSelected) -> None:
        chosen = next(job for job in self._jobs if str(job["id"]) == event.option_id)
        self.dismiss(chosen)

    def action_leave(self) -> None:
        """Compare with none."""
        self.dismiss(None)


def option(job: JobLine) -> Option:
    """Return a job's place in the list; one that may not be read cannot be chosen."""
    line = words(job) if job["readable"] else f"{words(job)}  (not yours to read)"
    return Option(Text(line), id=str(job["id"]), disabled=not job["readable"])
