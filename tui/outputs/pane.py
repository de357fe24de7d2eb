"""The Outputs tab: the list of what a job has made, and beside it what is under the cursor.

The rule this module protects: what is on the screen belongs to the row under the cursor of the job
that is shown. News of anything else is dropped, and a daemon that is away takes nothing away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.events import Resize
from textual.widgets import OptionList, Static

from tui.outputs.empty import not_readable, why_empty
from tui.outputs.file_list import FileList
from tui.outputs.files import Look, Row, after_change, neighbour, pictures, rows_of
from tui.outputs.latest import Latest
from tui.outputs.layout import Arrangement, arrangement
from tui.outputs.loading import Problem, attempt
from tui.outputs.messages import Listed, SheetChosen
from tui.outputs.sheet_view import SheetView
from tui.outputs.sheets import SheetPane
from tui.outputs.viewer import Viewer

if TYPE_CHECKING:
    from daemon.client.answers import JobLine
    from tui.pane import Connect


class OutputsPane(SheetPane):
    """The tab of a job's files."""

    HELP = """
    # Outputs

    What the job has made. `↑` `↓` choose, `enter` shows it large and `escape` goes back, `←` `→`
    go from picture to picture, `c` shows all of them small. `s` saves the file in a folder of
    yours, `S` all of them with the checkpoints; a file there that differs is never overwritten.
    `y` copies the path of the saved file, or the command that fetches it, `O` opens it with the
    system's viewer, `e` reads a text in your editor or pager.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,comma", "picture(-1)", "Picture before", show=False, id="outputs.before"),
        Binding("right,full_stop", "picture(1)", "Next picture", show=False, id="outputs.next"),
        Binding("escape", "back", "Back", show=False, id="outputs.back"),
    ]

    DEFAULT_CSS = """
    OutputsPane {
        width: 1fr;
        height: 1fr;
        #outputs-body { layout: vertical; width: 1fr; height: 1fr; }
        &.-beside #outputs-body { layout: horizontal; }
        SheetView { display: none; }
        &.-sheet SheetView { display: block; }
        &.-sheet FileList, &.-sheet Viewer, &.-large FileList, &.-bare FileList { display: none; }
        #outputs-told {
            dock: bottom;
            height: 1;
            padding: 0 1;
            color: $text-warning;
            text-wrap: nowrap;
            text-overflow: ellipsis;
            display: none;
        }
        &.-telling #outputs-told { display: block; }
    }
    """

    def __init__(self, connect: Connect, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(connect, id=id)
        self._listing: Latest[int] = Latest()
        self._number: int | None = None
        self._arranged: Arrangement | None = None

    def compose(self) -> ComposeResult:
        """Lay out."""
        with Container(id="outputs-body"):
            yield FileList()
            yield Viewer()
            yield SheetView()
        yield Static(id="outputs-told", markup=False)

    @property
    def files(self) -> FileList:
        """The list."""
        return self.query_one(FileList)

    # The job

    def show_job(self, job: JobLine | None) -> None:
        """Show another job; rest with None."""
        super().show_job(job)
        if job is None:
            self.rest()
            return
        if job["id"] != self._number:
            self._begin(job)
        if not job["readable"]:
            self.viewer.say(not_readable(job))
            return
        self._list()
        if self.row is not None:
            self.show_row(self.row)

    def update_job(self, job: JobLine) -> None:
        """Take the changed line of the job that is shown, and look for new files."""
        super().update_job(job)
        if job["readable"]:
            self._list()
        self.text_changed()

    def _begin(self, job: JobLine) -> None:
        """Forget the job before."""
        self.rest()
        if self.has_focus_within:
            self.files.focus()
        self._number, self.away = job["id"], False
        self.rows, self.row = [], None
        self.leave_sheet()
        self.set_class(False, "-large")
        self.tell("")
        self._show_rows()
        self.viewer.caption("")
        self.viewer.say("")

    # The list

    def look_again(self) -> None:
        """Ask for the files too, if the daemon was away."""
        if self.away:
            self._list()
        super().look_again()

    def _list(self) -> None:
        if self.job is not None and self._listing.ask(self.job["id"]):
            self._ask_files(self.job["id"])

    @work(thread=True, group="outputs-list")
    def _ask_files(self, number: int) -> None:
        found = attempt(self.connect, lambda client: client.artifacts(number))
        self.post_message(Listed(number=number, found=found))

    @on(Listed)
    def _listed(self, event: Listed) -> None:
        following = self._listing.finish()
        if following is not None:
            self._ask_files(following)
        if self.job is None or event.number != self.job["id"]:
            return
        if isinstance(event.found, Problem):
            self._not_listed(event.found)
            return
        if self.away:
            self.away = False
            self.tell("")
        self._take(rows_of(self.job, event.found))

    def _not_listed(self, problem: Problem) -> None:
        if problem.away:
            self.went_away(problem)
        if not self.rows:
            self.viewer.say(problem.message)

    def _take(self, rows: list[Row]) -> None:
        """Show the files there are now, the cursor where it was."""
        self.rows = rows
        chosen = after_change(rows, self.row.key if self.row else None)
        self.row = chosen
        self._show_rows()
        if chosen is None and self.job is not None:
            self.viewer.say(why_empty(self.job))
        self.show_row(chosen)
        self.fill_sheet()

    def _show_rows(self) -> None:
        """Show the list, which takes the keyboard back that it lost when it was empty."""
        if self.rows and self.has_class("-bare") and self.viewer.has_focus:
            self.call_after_refresh(self.files.focus)
        self.set_class(not self.rows, "-bare")
        self._arrange()
        self.files.show(self.rows, self.row.key if self.row else None)

    @on(OptionList.OptionHighlighted)
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        row = self.files.row_at(event.option_index)
        if row is not None and (self.row is None or row.key != self.row.key):
            self.show_row(row)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        """Show the row large, with the keyboard in it."""
        event.stop()
        if self.row is not None and self.row.look is not Look.FACTS:
            self.add_class("-large")
            self.call_after_refresh(self._focus_output)

    def _focus_output(self) -> None:
        in_text = self.viewer.shown == "text"
        (self.viewer.text_view if in_text else self.viewer).focus()

    # Moving

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave escape to others where there is nothing to go back from."""
        match action:
            case "back":
                return self.has_sheet or self.has_class("-large")
            case "picture":
                return not self.has_sheet and bool(pictures(self.rows))
        return super().check_action(action, parameters)

    def action_picture(self, step: int) -> None:
        """Go to another picture."""
        row = neighbour(self.rows, self.row.key if self.row else None, step)
        if row is not None:
            self._go(row)

    def action_back(self) -> None:
        """Leave the sheet, or the large output."""
        if self.has_sheet:
            self.leave_sheet()
        else:
            self.remove_class("-large")
        self.refresh_bindings()
        self.files.focus()

    def leave_sheet(self) -> None:
        """Show the list again, with the keyboard in it if the sheet had it."""
        had_focus = self.sheet.has_focus
        super().leave_sheet()
        if had_focus:
            self.files.focus()

    @on(SheetChosen)
    def _sheet_chosen(self, event: SheetChosen) -> None:
        event.stop()
        self.leave_sheet()
        self._go(event.row)

    def _go(self, row: Row) -> None:
        with self.prevent(OptionList.OptionHighlighted):
            self.files.move_to(row.key)
        self.show_row(row)

    # The place

    def tell(self, text: str) -> None:
        """Show one line at the bottom, or none."""
        self.set_class(bool(text), "-telling")
        self.query_one("#outputs-told", Static).update(Content(text))

    def on_resize(self, _event: Resize) -> None:
        """Find the list another place if need be."""
        self._arrange()

    @on(Viewer.Resized)
    def _viewer_resized(self) -> None:
        self.redraw()

    def _arrange(self) -> None:
        place = self.size
        arranged = arrangement(place.width, place.height, len(self.rows))
        if arranged == self._arranged:
            return
        self._arranged = arranged
        self.set_class(arranged.beside, "-beside")
        self.files.styles.width = arranged.size if arranged.beside else "1fr"
        self.files.styles.height = "1fr" if arranged.beside else arranged.size
