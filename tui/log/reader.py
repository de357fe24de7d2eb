"""What runs behind the Log tab: a follower, a reader of other parts, and a search of the file.

The rule this module protects: at most one of each runs, for the job that is shown, and none while
the tab rests. What comes too late, for another job or another place, is passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual import work

from tui.log import tasks
from tui.log.model import Model, Way
from tui.log.search import Needle
from tui.log.source import Piece
from tui.log.tasks import Ask, Fetched, Rested, Searched, Task, Trouble
from tui.log.view import LogView
from tui.pane import Connect, JobPane

if TYPE_CHECKING:
    from daemon.client.answers import JobLine


class LogReader(JobPane):
    """Brings what it reads into the model and to the screen. The tab adds keys and words."""

    def __init__(self, connect: Connect, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(connect, id=id)
        self.model = Model()
        self.trouble: Trouble | None = None
        self._number: int | None = None
        self._read_state = ""
        self._is_stale = False
        self._follower: Task | None = None
        self._fetcher: Task | None = None
        self._searcher: Task | None = None

    @property
    def view(self) -> LogView:
        """The lines."""
        return self.query_one(LogView)

    @property
    def is_following(self) -> bool:
        """Whether the end of the log is read as it grows."""
        return self._follower is not None

    @property
    def is_searching(self) -> bool:
        """Whether the file is being searched."""
        return self._searcher is not None

    def say(self) -> None:
        """Say how things stand. Called after every change."""

    def found(self) -> None:
        """Do what waited for the search to come further."""

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
        self.trouble = None
        if job["readable"]:
            self._start_following(job["id"])
            self.search_file()
        self.say()

    def update_job(self, job: JobLine) -> None:
        """Take the changed line; a job that has begun or gone on is followed again."""
        changed = self.job is None or job["state"] != self.job["state"]
        super().update_job(job)
        self._is_stale = self._is_stale or changed
        if self._follower is None:
            self._follow_again()
        self.say()

    def on_unmount(self) -> None:
        """Let the threads end."""
        self._stop_all()

    def _show_nothing(self) -> None:
        with self.view.changing(anew=True):
            self.model.clear()
        self._read_state = ""

    def _stop_all(self) -> None:
        for task in (self._follower, self._fetcher, self._searcher):
            if task is not None:
                task.stop.set()
        self._follower = self._fetcher = self._searcher = None

    # Threads

    def _start_following(self, number: int) -> None:
        self._is_stale = False
        self._follower = Task(number=number)
        self._follow(self._follower, self.model.tail.stop if self.model.tail else None)

    def _follow_again(self) -> None:
        """Follow on if the job is said to be in another state than when all was read."""
        job = self.job
        if self._is_stale and job and job["readable"] and job["state"] != self._read_state:
            self._start_following(job["id"])

    def ask(self, ask: Ask) -> None:
        """Have a part of the log read; what was asked for before is no longer wanted."""
        if self.job is None:
            return
        if self._fetcher is not None:
            self._fetcher.stop.set()
        self._fetcher = Task(number=self.job["id"])
        self._fetch(self._fetcher, ask)

    def search_file(self) -> None:
        """Search what the file holds before the part that was searched already."""
        self.end_search()
        needle, matches = self.model.needle, self.model.matches
        if needle is None or self.job is None or matches.low == 0 or matches.is_full:
            return
        self._searcher = Task(number=self.job["id"])
        self._search(self._searcher, needle, matches.low)

    def end_search(self) -> None:
        """Search no further."""
        if self._searcher is not None:
            self._searcher.stop.set()
        self._searcher = None

    @work(thread=True, group="log-follow")
    def _follow(self, task: Task, at: int | None) -> None:
        tasks.follow(self.connect, task, at, lambda: self.model.following, self._teller(task))

    @work(thread=True, group="log-fetch")
    def _fetch(self, task: Task, ask: Ask) -> None:
        tasks.fetch(self.connect, task, ask, self._teller(task))

    @work(thread=True, group="log-search")
    def _search(self, task: Task, needle: Needle, stop: int) -> None:
        tasks.search(self.connect, task, needle, stop, self._teller(task))

    def _teller(self, task: Task) -> tasks.Tell:
        app = self.app
        return lambda what: app.call_from_thread(self._take, task, what)

    # What they hand over

    def _take(self, task: Task, what: Any) -> None:
        if task.stop.is_set():
            return
        if isinstance(what, Trouble):
            self._take_trouble(task, what)
        else:
            self.trouble = None
        if isinstance(what, Piece):
            self._take_piece(what)
        elif isinstance(what, Rested):
            self._follower, self._read_state = None, what.state
            self._follow_again()
        elif isinstance(what, Fetched):
            self._take_fetched(what)
        elif isinstance(what, Searched):
            self._take_searched(what)
        self.say()

    def _take_piece(self, piece: Piece) -> None:
        with self.view.changing(anew=piece.fresh):
            self.model.take(piece)
        if piece.fresh:
            self.search_file()
        self.look_for_more()

    def _take_fetched(self, what: Fetched) -> None:
        self._fetcher = None
        if what.piece is None:
            return
        with self.view.changing(anew=what.way is Way.ANEW):
            fits = self.model.take_asked(what.piece, what.way)
        if what.at is not None:
            self.reveal(what.at)
        if fits:
            self.look_for_more()

    def _take_searched(self, what: Searched) -> None:
        self.model.matches.add_before(what.starts, what.low)
        if what.over or self.model.matches.is_full:
            self.end_search()
        self.found()

    def _take_trouble(self, task: Task, trouble: Trouble) -> None:
        self.trouble = trouble if trouble.error else None
        if trouble.final:
            task.stop.set()
            self._follower = None if self._follower is task else self._follower
            self._fetcher = None if self._fetcher is task else self._fetcher
            self._searcher = None if self._searcher is task else self._searcher

    # The place on the screen

    def on_log_view_moved(self, event: LogView.Moved) -> None:
        """Follow at the end, stay elsewhere, and read what lies beyond the edges."""
        event.stop()
        self.model.follow(self.view.is_at_bottom and self.model.is_at_end)
        self.look_for_more()
        self.say()

    def look_for_more(self) -> None:
        """Read on where the reader is a screen away from the edge of what is in memory."""
        view, window, tail = self.view, self.model.window, self.model.tail
        if self._fetcher is not None or tail is None:
            return
        if window.start > 0 and view.scroll_offset.y < view.rows:
            self.ask(Ask(way=Way.UP, before=window.start))
        elif window.stop < tail.stop and view.max_scroll_y - view.scroll_offset.y < view.rows:
            self.ask(Ask(way=Way.DOWN, after=window.stop))

    def reveal(self, at: int) -> None:
        """Bring the line that holds a byte to the screen."""
        index = self.model.window.find(at)
        if index is not None and not self.model.following:
            self.view.reveal(index)
