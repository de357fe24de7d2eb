"""The Log tab: follows the log of the job that is shown, and lets one go and search in it.

The rule this module protects: a log of any size and speed costs the same. In memory is one window
of lines; the rest is read again when somebody goes there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from tui.log import tasks, words
from tui.log.model import Model, Way
from tui.log.search import Needle
from tui.log.searchbar import SearchBar
from tui.log.source import Piece
from tui.log.tasks import Ask, Fetched, Rested, Searched, Task, Trouble
from tui.log.view import LogView
from tui.pane import Connect, JobPane

if TYPE_CHECKING:
    from daemon.client.answers import JobLine


class LogPane(JobPane):
    """The log of a job."""

    HELP = """
# Log

What the job writes, as it writes it. The newest lines are shown until you scroll up; then the
screen stays where it is, and the line below says how many lines have come. Go to the end to follow
again.

- `/` searches, from the end backwards through the whole file: `N` goes up, `n` down, `escape`
  stops. Capitals count only if you type some.
- `y` copies: what is selected with the mouse, else the line of the match, else the screen.
- A log of any size opens at once: earlier parts are read when you go there.
"""
    DEFAULT_CSS = """
    LogPane { height: 1fr; layout: vertical; }
    LogPane > #log-line { height: 1; padding: 0 1; background: $panel; color: $foreground; }
    LogPane #log-says { width: 1fr; height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    LogPane #log-place { width: auto; height: 1; color: $text-muted; }
    LogPane #log-line.-news #log-says { color: $text-accent; text-style: bold; }
    LogPane #log-line.-trouble #log-says { color: $text-warning; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Search", key_display="/", id="log.search"),
        Binding("f", "follow", "Follow", id="log.follow"),
        Binding("n", "next", "Next match", show=False, id="log.next"),
        Binding("N", "previous", "Previous match", show=False, id="log.previous"),
        Binding("w", "wrap", "Wrap", show=False, id="log.wrap"),
        Binding("y", "copy", "Copy", show=False, id="log.copy"),
        Binding("home,g", "beginning", "Beginning", show=False, id="log.beginning"),
        Binding("end,G", "end", "End", show=False, id="log.end"),
        Binding("escape", "stop", "Stop searching", show=False, id="log.stop"),
    ]

    def __init__(self, connect: Connect, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(connect, id=id)
        self.model = Model()
        self._number: int | None = None
        self._read_state = ""
        self._is_stale = False
        self._trouble: Trouble | None = None
        self._following: Task | None = None
        self._fetching: Task | None = None
        self._searching: Task | None = None
        self._wish = 0
        self._wish_from = 0

    def compose(self) -> ComposeResult:
        """Make the lines, the search's entry, and the line that says how things stand."""
        yield LogView(self.model, id="log-lines")
        yield SearchBar(id="log-search")
        with Horizontal(id="log-line"):
            yield Static(id="log-says")
            yield Static(id="log-place")

    @property
    def view(self) -> LogView:
        """The lines."""
        return self.query_one(LogView)

    @property
    def bar(self) -> SearchBar:
        """Where one types what to search for."""
        return self.query_one(SearchBar)

    @property
    def is_searching(self) -> bool:
        """Whether the file is being searched."""
        return self._searching is not None

    # The job

    def show_job(self, job: JobLine | None) -> None:
        """Show a job's log from its end; the one that was shown before where it was left."""
        super().show_job(job)
        self._stop_all()
        if job is None:
            return
        if job["id"] != self._number:
            self._number = job["id"]
            self._show_nothing()
        self._trouble = None
        if job["readable"]:
            self._start_following()
            self._search_file()
        self._say()

    def update_job(self, job: JobLine) -> None:
        """Take the changed line; a job that has begun or gone on is followed again."""
        changed = self.job is None or job["state"] != self.job["state"]
        super().update_job(job)
        self._is_stale = self._is_stale or changed
        if self._following is None:
            self._follow_again()
        self._say()

    def on_unmount(self) -> None:
        """Let the threads end."""
        self._stop_all()

    def _show_nothing(self) -> None:
        with self.view.changing(anew=True):
            self.model.clear()
        self._read_state, self._wish = "", 0

    def _stop_all(self) -> None:
        for task in (self._following, self._fetching, self._searching):
            if task is not None:
                task.stop.set()
        self._following = self._fetching = self._searching = None

    # Following

    def _start_following(self) -> None:
        assert self._number is not None  # noqa: S101 - a job is shown
        self._is_stale = False
        self._following = Task(number=self._number)
        self._follow(self._following, self.model.tail.stop if self.model.tail else None)

    def _follow_again(self) -> None:
        """Follow on if the job is said to be in another state than when all was read."""
        job = self.job
        if self._is_stale and job and job["readable"] and job["state"] != self._read_state:
            self._start_following()

    @work(thread=True, group="log-follow", exit_on_error=True)
    def _follow(self, task: Task, at: int | None) -> None:
        tasks.follow(self.connect, task, at, lambda: self.model.following, self._teller(task))

    def _teller(self, task: Task) -> tasks.Tell:
        app = self.app
        return lambda what: app.call_from_thread(self._take, task, what)

    def _take(self, task: Task, what: Any) -> None:
        """Take what a thread hands over, unless nobody wants it any more."""
        if task.stop.is_set():
            return
        if isinstance(what, Piece):
            self._take_piece(what)
        elif isinstance(what, Rested):
            self._following, self._read_state = None, what.state
            self._follow_again()
        elif isinstance(what, Fetched):
            self._take_fetched(what)
        elif isinstance(what, Searched):
            self._take_searched(what)
        elif isinstance(what, Trouble):
            self._take_trouble(task, what)
        self._say()

    def _take_piece(self, piece: Piece) -> None:
        with self.view.changing(anew=piece.fresh):
            self.model.take(piece)
        if piece.fresh:
            self._search_file()
        self._look_for_more()

    def _take_trouble(self, task: Task, trouble: Trouble) -> None:
        self._trouble = trouble if trouble.error else None
        if trouble.final:
            task.stop.set()
            names = ("_following", "_fetching", "_searching")
            for name in names:
                if getattr(self, name) is task:
                    setattr(self, name, None)

    # Reading elsewhere

    def on_log_view_moved(self, event: LogView.Moved) -> None:
        """Follow at the end, stay elsewhere, and read what lies beyond the edges."""
        event.stop()
        self.model.follow(self.view.is_at_bottom and self.model.is_at_end)
        self._look_for_more()
        self._say()

    def _look_for_more(self) -> None:
        """Read on where the reader is a screen away from the edge of what is in memory."""
        view, window = self.view, self.model.window
        if self._fetching is not None or self.model.tail is None:
            return
        if window.start > 0 and view.scroll_offset.y < view.rows:
            self._ask(Ask(way=Way.UP, before=window.start))
        elif (
            not self.model.is_at_end
            and view.max_scroll_y - view.scroll_offset.y < view.rows
            and window.stop < self.model.tail.stop
        ):
            self._ask(Ask(way=Way.DOWN, after=window.stop))

    def _ask(self, ask: Ask) -> None:
        if self._number is None or self.job is None:
            return
        if self._fetching is not None:
            self._fetching.stop.set()
        self._fetching = Task(number=self._number)
        self._fetch(self._fetching, ask)

    @work(thread=True, group="log-fetch")
    def _fetch(self, task: Task, ask: Ask) -> None:
        tasks.fetch(self.connect, task, ask, self._teller(task))

    def _take_fetched(self, what: Fetched) -> None:
        self._fetching = None
        if what.piece is None:
            return
        with self.view.changing(anew=what.way is Way.ANEW):
            fits = self.model.take_asked(what.piece, what.way)
        if what.way is Way.ANEW:
            self._reveal(what.at if what.at is not None else what.piece.stop)
        if fits:
            self._look_for_more()

    def _reveal(self, at: int) -> None:
        index = self.model.window.find(at)
        if index is not None and not self.model.following:
            self.view.reveal(index)

    # Keys

    def action_follow(self) -> None:
        """Show what comes, or stay here."""
        if self.model.following:
            self.model.follow(False)
            self._say()
        else:
            self.action_end()

    def action_end(self) -> None:
        """Go to the end and follow."""
        self.model.follow(True)
        tail = self.model.tail
        if self.model.is_at_end or tail is None:
            self.view.place(self.model.window.bottom)
        else:
            self._ask(Ask(way=Way.ANEW, before=tail.stop))
        self._say()

    def action_beginning(self) -> None:
        """Go to the beginning of the log."""
        self.model.follow(False)
        if self.model.window.start == 0:
            self.view.place(self.model.window.top)
        else:
            self._ask(Ask(way=Way.ANEW, after=0))
        self.model.follow(self.view.is_at_bottom and self.model.is_at_end)
        self._say()

    def action_wrap(self) -> None:
        """Wrap long lines, or cut them."""
        self.view.wrap = not self.view.wrap
        self._say()

    def action_copy(self) -> None:
        """Copy what is selected, the line of the match, or the screen."""
        selected = self.screen.get_selected_text()
        index = None if self.model.current is None else self.model.window.find(self.model.current)
        if selected:
            text, what = selected, "the selection"
        elif index is not None:
            text, what = self.model.window[index].text, "the line of the match"
        else:
            lines = self.view.shown()
            text, what = "\n".join(line.text for line in lines), f"{len(lines)} lines"
        if text:
            self.app.copy_to_clipboard(text)
            self.notify(f"Copied {what}.")

    # Searching

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what belongs to a search only while there is one."""
        del parameters
        if action in ("next", "previous", "stop"):
            return self.model.needle is not None
        return True

    def action_search(self) -> None:
        """Ask what to search for."""
        self.bar.ask(self.model.needle.text if self.model.needle else "")
        self._say()

    def on_search_bar_changed_text(self, event: SearchBar.ChangedText) -> None:
        """Show the matches on the screen while the text is typed."""
        event.stop()
        self._end_search()
        if event.text:
            self.model.search(Needle(event.text))
        self.view.forget_strips()
        self._say()

    def on_search_bar_closed(self, event: SearchBar.Closed) -> None:
        """Search for what was entered, from the screen's last line upwards."""
        event.stop()
        self.view.focus()
        if not event.accepted:
            return self.action_stop()
        shown = self.view.shown()
        self._search_file()
        self._go(-1, shown[-1].start + 1 if shown else self.model.size)
        return None

    def action_next(self) -> None:
        """Go to the next match below."""
        shown = self.view.shown()
        here = self.model.current
        self._go(1, here if here is not None else shown[0].start - 1 if shown else 0)

    def action_previous(self) -> None:
        """Go to the next match above."""
        shown = self.view.shown()
        here = self.model.current
        self._go(-1, here if here is not None else shown[-1].start + 1 if shown else 0)

    def action_stop(self) -> None:
        """Stop searching the file; a second time, forget the search."""
        if self.is_searching:
            self._end_search()
        else:
            self.model.stop_searching()
            self.view.forget_strips()
        self._say()

    def _end_search(self) -> None:
        if self._searching is not None:
            self._searching.stop.set()
        self._searching, self._wish = None, 0

    def _search_file(self) -> None:
        """Search what the file holds before its end."""
        needle, tail = self.model.needle, self.model.tail
        self._end_search()
        if needle is None or tail is None or self._number is None:
            return
        self.model.restart_search()
        self._searching = Task(number=self._number)
        self._search(self._searching, needle, tail.stop)

    @work(thread=True, group="log-search")
    def _search(self, task: Task, needle: Needle, stop: int) -> None:
        tasks.search(self.connect, task, needle, stop, self._teller(task))

    def _take_searched(self, what: Searched) -> None:
        self.model.matches.add_before(what.starts, what.low)
        if what.over or self.model.matches.is_full:
            self._searching = None
        if self._wish < 0:
            self._go(-1, self._wish_from)

    def _go(self, way: int, here: int) -> None:
        """Go to the nearest match on one side; upwards it may still have to be found."""
        self._wish = 0
        start = self.model.above(here) if way < 0 else self.model.below(here)
        if start is not None:
            self._go_to(start)
        elif way < 0 and self.is_searching:
            self._wish, self._wish_from = -1, here
        elif self.model.current is None:
            self.notify(f"Nothing matches {self.model.needle.text!r}.")  # type: ignore[union-attr]
        else:
            self.notify("This is the first match." if way < 0 else "This is the last match.")

    def _go_to(self, start: int) -> None:
        self.model.current = start
        self.model.follow(False)
        self.view.forget_strips()
        if self.model.window.find(start) is None:
            self._ask(Ask(way=Way.ANEW, before=start, after=start))
        else:
            self._reveal(start)
        self._look_for_more()
        self._say()

    # Words

    def _say(self) -> None:
        """Say how things stand."""
        if not self.is_mounted or self.job is None:
            return
        self.view.notice = self._notice()
        error = self._trouble.error if self._trouble else None
        ended = self._following is None and self.job["state"] in tasks.RESTING
        found = words.search(self.model, searching=self.is_searching, typing=self.bar.is_open)
        news = "" if self.view.notice else words.news(self.model, ended=ended)
        says = [part for part in (str(error) if error else "", found, news) if part]
        line = self.query_one("#log-line")
        line.set_class(error is not None, "-trouble")
        line.set_class(bool(self.model.unseen), "-news")
        self.query_one("#log-says", Static).update(Content(" · ".join(says)))
        shown = self.view.shown()
        top = shown[0].start if shown else None
        place = [words.place(self.model, top), "wrapped" if self.view.wrap else ""]
        self.query_one("#log-place", Static).update(Content(" · ".join(filter(None, place))))

    def _notice(self) -> str:
        assert self.job is not None  # noqa: S101 - asked while a job is shown
        if why := words.hidden(self.job):
            return why
        if len(self.model.window) or (self.model.tail is None and self._following is not None):
            return ""
        if self._trouble and self._trouble.error:
            return f"{self._trouble.error}\n{self._trouble.error.remedy or ''}"
        return words.empty(self.job)
