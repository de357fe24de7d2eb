"""The part of the tab that brings what is under the cursor: pictures, texts, what is being made.

The rule this module protects: one thread at a time brings the row that is wanted, another follows
the text that is made; what comes for a row that is no longer under the cursor is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.timer import Timer
from textual.worker import get_current_worker

from tui.outputs import loading, stream
from tui.outputs.captions import caption
from tui.outputs.files import Look, Row
from tui.outputs.keeping import KeepingPane
from tui.outputs.latest import Latest
from tui.outputs.loading import Drawn, Page, Problem, Wish, attempt
from tui.outputs.messages import Brought, Streamed
from tui.outputs.viewer import Viewer
from tui.pane import Connect

if TYPE_CHECKING:
    from daemon.client import Client


class WatchingPane(KeepingPane):
    """A tab with a ``Viewer`` that shows the current row."""

    # Seconds between two looks at a preview, or for a daemon that is away.
    LOOK_EVERY: ClassVar[float] = 2.0

    def __init__(self, connect: Connect, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(connect, id=id)
        self.away = False
        self._latest: Latest[Wish] = Latest()
        self._listener: object = None
        self._looking: Timer | None = None
        self._pixels: tuple[int, int] | None = None
        self._note = ""
        self._shown: tuple[int, Row] | None = None

    @property
    def viewer(self) -> Viewer:
        """Where the row is shown."""
        return self.query_one(Viewer)

    def on_mount(self) -> None:
        """Make the timer; it runs only while there is something to look for."""
        self._looking = self.set_interval(self.LOOK_EVERY, self.look_again, pause=True)

    def look_again(self) -> None:
        """Bring the preview anew, and what could not be brought while the daemon was away."""
        if self.row is not None and (self.away or self.row.look is Look.PREVIEW):
            self._bring_row(self.row)

    def show_row(self, row: Row | None) -> None:
        """Show a row, if it is not shown already; None shows nothing."""
        if self.job is None or row is None:
            self.rest()
            self.row = row
        elif self._shown != (self.job["id"], row):
            self.rest()
            self.row, self._shown = row, (self.job["id"], row)
            self._pixels, self._note = None, ""
            self._bring_row(row)
        self._set_timer()
        self.text_changed()
        self.refresh_bindings()

    def rest(self) -> None:
        """Bring nothing any more."""
        self._listener, self._shown = None, None
        self._latest.forget()
        self.workers.cancel_group(self, "outputs-stream")
        self._set_timer()

    def redraw(self) -> None:
        """Bring a picture in the size that there is now."""
        if self.row is not None and self.row.look in (Look.PICTURE, Look.PREVIEW):
            self._bring_row(self.row)

    def text_changed(self) -> None:
        """Write the line above the output."""
        if self.job is None or self.row is None:
            self.viewer.caption("")
            return
        saved = self.saved_path(self.row)
        line = caption(
            self.job, self.row, self.rows, pixels=self._pixels, saved=saved, note=self._note
        )
        self.viewer.caption(line)

    def shown_text(self) -> str:
        """Return the text that is shown, as far as it is held."""
        return "\n".join(self.viewer.text_view.wrapped.lines)

    def _set_timer(self) -> None:
        """Let the timer run while there is something to look for."""
        if self._looking is None:
            return
        previewing = self.row is not None and self.row.look is Look.PREVIEW
        if self.job is not None and (self.away or previewing):
            self._looking.resume()
        else:
            self._looking.pause()

    # Bringing

    def _bring_row(self, row: Row) -> None:
        if self.job is None:
            return
        if row.look is Look.FACTS and row.artifact is not None:
            self.viewer.switch("facts")
            self.viewer.facts.show(self.job, row.artifact)
        elif row.look is Look.STREAM:
            self._follow()
        else:
            wish = Wish(
                number=self.job["id"],
                row=row,
                frame=self.viewer.frame,
                width=self.viewer.text_width,
            )
            if self._latest.ask(wish):
                self._bring(wish)

    @work(thread=True, group="outputs-bring")
    def _bring(self, wish: Wish) -> None:
        content = attempt(self.connect, lambda client: loading.load(client, self.scratch, wish))
        self.post_message(Brought(wish=wish, content=content))

    @on(Brought)
    def _brought(self, event: Brought) -> None:
        following = self._latest.finish()
        if following is not None:
            self._bring(following)
        wish = event.wish
        if self.job is None or (wish.number, wish.row) != self._shown:
            return
        match event.content:
            case Problem():
                self._told(event.content)
            case Drawn():
                self._pixels = event.content.picture.size
                self.viewer.show_picture(event.content)
            case Page():
                self._note = event.content.text.note
                self.viewer.show_page(event.content)
        self.text_changed()

    def _told(self, problem: Problem) -> None:
        """Say what is wrong; what is there stays while the daemon is away or draws on."""
        if problem.away:
            self.went_away(problem)
        keeps = self.row is not None and self.row.look in (Look.PREVIEW, Look.STREAM)
        if self._pixels is None and not (keeps and self.viewer.shown == "text"):
            self.viewer.say(problem.message)

    def went_away(self, problem: Problem) -> None:
        """Say that the daemon is away, and look for it."""
        self.away = True
        self.tell(problem.message.partition("\n")[0])
        self._set_timer()

    # Following a text

    def _follow(self) -> None:
        if self.job is None or self._listener is not None:
            return
        self._listener = object()
        self.viewer.begin_text()
        self._stream(self.job["id"], self._listener)

    @work(thread=True, exclusive=True, group="outputs-stream")
    def _stream(self, number: int, listener: object) -> None:
        worker = get_current_worker()

        def follow(client: Client) -> None:
            read = stream.reader(client, number)
            for piece in stream.pieces(read, lambda: not worker.is_cancelled):
                self.post_message(Streamed(listener=listener, piece=piece))

        problem = attempt(self.connect, follow)
        if problem is not None:
            self.post_message(Streamed(listener=listener, piece=problem))

    @on(Streamed)
    def _streamed(self, event: Streamed) -> None:
        if event.listener is not self._listener:
            return
        if isinstance(event.piece, Problem):
            self._listener = None
            self._told(event.piece)
            return
        self.viewer.grow_text(event.piece.text, anew=event.piece.anew)
        left_out = self.viewer.text_view.wrapped.left_out
        self._note = "only its end, the whole is in the file" if left_out else ""
        self.text_changed()
