"""The part of the tab that has the contact sheet.

The rule this module protects: one thread brings the pictures of the page that is seen, one after
another, and stops when another page is.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType

from tui.outputs.files import pictures
from tui.outputs.latest import Latest
from tui.outputs.loading import Drawn, PictureWish, attempt, load_picture
from tui.outputs.messages import PageDone, SheetWanted, SheetWish, ThumbCame
from tui.outputs.sheet_view import SheetView
from tui.outputs.watching import WatchingPane
from tui.pane import Connect

if TYPE_CHECKING:
    from daemon.client import Client


class SheetPane(WatchingPane):
    """A tab with a ``SheetView``."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "sheet", "Sheet", id="outputs.sheet"),
    ]

    def __init__(self, connect: Connect, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(connect, id=id)
        self._pages: Latest[SheetWish] = Latest()

    @property
    def sheet(self) -> SheetView:
        """The contact sheet."""
        return self.query_one(SheetView)

    @property
    def has_sheet(self) -> bool:
        """Whether the sheet is what is shown."""
        return self.has_class("-sheet")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer the sheet where there are pictures."""
        if action == "sheet":
            return self.has_sheet or bool(pictures(self.rows))
        return super().check_action(action, parameters)

    def action_sheet(self) -> None:
        """Show all pictures, or the list again."""
        if self.has_sheet:
            self.leave_sheet()
        else:
            self.add_class("-sheet")
            self.sheet.focus()
            self.call_after_refresh(self.fill_sheet)

    def leave_sheet(self) -> None:
        """Show the list again, and hold no small pictures."""
        self.remove_class("-sheet")
        self._pages.forget()
        self.sheet.forget()

    def fill_sheet(self) -> None:
        """Show the pictures there are now."""
        if self.has_sheet:
            at = self.sheet.row or self.row
            self.sheet.show(pictures(self.rows), at.key if at else None)

    @on(SheetWanted)
    def _sheet_wanted(self, event: SheetWanted) -> None:
        event.stop()
        if self.job is None:
            return
        wish = SheetWish(number=self.job["id"], rows=event.rows, frame=event.frame)
        if self._pages.ask(wish):
            self._bring_page(wish)

    @work(thread=True, group="outputs-sheet")
    def _bring_page(self, wish: SheetWish) -> None:
        # Read across threads: a stale look costs one picture more, nothing else.
        for row in wish.rows:
            if self._pages.newest is not wish or row.artifact is None:
                break
            one = PictureWish(number=wish.number, artifact=row.artifact, frame=wish.frame)
            content = attempt(self.connect, partial(self._load_picture, one))
            self.post_message(ThumbCame(wish=wish, row=row, content=content))
        self.post_message(PageDone())

    def _load_picture(self, wish: PictureWish, client: Client) -> Drawn:
        return load_picture(client, self.scratch, wish)

    @on(ThumbCame)
    def _thumb_came(self, event: ThumbCame) -> None:
        if self.job is not None and self.job["id"] == event.wish.number and self.has_sheet:
            self.sheet.place(event.row, event.content)

    @on(PageDone)
    def _page_done(self) -> None:
        following = self._pages.finish()
        if following is not None:
            self._bring_page(following)
