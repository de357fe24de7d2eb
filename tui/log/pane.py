"""The Log tab: follows the log of the job that is shown, and lets one go and search in it.

The rule this module protects: a log of any size and speed costs the same. In memory is one window
of lines; the rest is read again when somebody goes there.
"""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from tui.log import tasks, words
from tui.log.model import Way
from tui.log.reader import LogReader
from tui.log.search import Needle
from tui.log.searchbar import SearchBar
from tui.log.tasks import Ask
from tui.log.view import LogView
from tui.pane import Connect


class LogPane(LogReader):
    """The log of a job."""

    HELP = """
# Log

What the job writes, as it writes it. The newest lines are shown until you scroll up; then the
screen stays where it is, and the line below says how many lines have come. Go to the end to follow
again.

- `/` searches, from the screen's end up through the whole file: `N` goes up, `n` down, `escape`
  stops, and once more forgets. Capitals count only if you type some.
- `y` copies: what is selected with the mouse, else the line of the match, else the screen.
- A log of any size opens at once: earlier parts are read when you go there.
"""
    DEFAULT_CSS = """
    LogPane { height: 1fr; layout: vertical; }
    LogPane > #log-line { height: 1; padding: 0 1; background: $panel; color: $foreground; }
    LogPane #log-says { width: 1fr; height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    LogPane #log-place { width: auto; height: 1; padding-left: 1; color: $text-muted; }
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
        # Which way to go and from where, once the search has come so far.
        self._wish: tuple[int, int] | None = None

    def compose(self) -> ComposeResult:
        """Make the lines, the search's entry, and the line that says how things stand."""
        yield LogView(self.model, id="log-lines")
        yield SearchBar(id="log-search")
        with Horizontal(id="log-line"):
            yield Static(id="log-says")
            yield Static(id="log-place")

    @property
    def bar(self) -> SearchBar:
        """Where one types what to search for."""
        return self.query_one(SearchBar)

    # Going about

    def action_follow(self) -> None:
        """Show what comes, or stay here."""
        if self.model.following:
            self.model.follow(False)
            self.say()
        else:
            self.action_end()

    def action_end(self) -> None:
        """Go to the end and follow."""
        self._wish = None
        self.model.follow(True)
        tail = self.model.tail
        if self.model.is_at_end or tail is None:
            self.view.place(self.model.window.bottom)
        else:
            self.ask(Ask(way=Way.ANEW, before=tail.stop))
        self.say()

    def action_beginning(self) -> None:
        """Go to the beginning of the log."""
        self._wish = None
        if self.model.window.start > 0:
            self.model.follow(False)
            self.ask(Ask(way=Way.ANEW, after=0))
        else:
            self.view.place(self.model.window.top)
            self.model.follow(self.view.is_at_bottom and self.model.is_at_end)
        self.say()

    def action_wrap(self) -> None:
        """Wrap long lines, or cut them."""
        self.view.wrap = not self.view.wrap
        self.say()

    def action_copy(self) -> None:
        """Copy what is selected, the line of the match, or the screen."""
        current = self.model.current
        index = None if current is None else self.model.window.find(current)
        if text := self.screen.get_selected_text():
            what = "the selection"
        elif index is not None:
            text, what = self.model.window[index].text, "the line of the match"
        else:
            text = "\n".join(line.text for line in self.view.shown())
            what = "the lines on the screen"
        if text:
            self.app.copy_to_clipboard(text)
            self.notify(f"Copied {what}.")

    # Searching

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what belongs to a search only while there is one."""
        del parameters
        return action not in ("next", "previous", "stop") or self.model.needle is not None

    def action_search(self) -> None:
        """Ask what to search for."""
        self.bar.ask(self.model.needle.text if self.model.needle else "")
        self.say()

    def on_search_bar_changed_text(self, event: SearchBar.ChangedText) -> None:
        """Mark the matches on the screen while the text is typed."""
        event.stop()
        self._forget_search()
        if event.text:
            self.model.search(Needle(event.text))
        self.view.forget_strips()
        self.say()

    def on_search_bar_closed(self, event: SearchBar.Closed) -> None:
        """Search for what was entered, from the screen's last line up."""
        event.stop()
        self.screen.set_focus(self.view)
        if event.accepted:
            self._take_needle(event.text)
        else:
            self._forget_search()
        self.view.forget_strips()
        self.say()

    def _take_needle(self, text: str) -> None:
        """Look for a text, which may be the one that was looked for before."""
        if self.model.needle is None or self.model.needle.text != text:
            self.model.search(Needle(text))
        self.search_file()
        self._go(-1, self._below_screen())

    def action_next(self) -> None:
        """Go to the next match below."""
        here = self.model.current
        self._go(1, self._above_screen() if here is None else here)

    def action_previous(self) -> None:
        """Go to the next match above."""
        here = self.model.current
        self._go(-1, self._below_screen() if here is None else here)

    def action_stop(self) -> None:
        """Stop searching the file; a second time, forget the search."""
        if self.is_searching:
            self._wish = None
            self.end_search()
        else:
            self._forget_search()
            self.view.forget_strips()
        self.say()

    def found(self) -> None:
        """Go where one wanted to go, if that has been found by now."""
        if self._wish is not None:
            self._go(*self._wish)

    def _forget_search(self) -> None:
        self._wish = None
        self.end_search()
        self.model.stop_searching()

    def _above_screen(self) -> int:
        shown = self.view.shown()
        return shown[0].start - 1 if shown else 0

    def _below_screen(self) -> int:
        shown = self.view.shown()
        return shown[-1].start + 1 if shown else self.model.size

    def _go(self, way: int, here: int) -> None:
        """Go to the nearest match above (-1) or below (1), as soon as it is found."""
        self._wish = None
        start = self.model.above(here) if way < 0 else self.model.below(here)
        if start is not None:
            return self._go_to(start)
        if not self.is_searching:
            self.search_file()
        waits = way < 0 or self.model.matches.low > self.model.window.stop
        if self.is_searching and waits:
            self._wish = way, here
        else:
            self._say_nothing(way)
        return None

    def _say_nothing(self, way: int) -> None:
        needle = self.model.needle
        if self.model.current is not None:
            self.notify(f"This is the {'first' if way < 0 else 'last'} match.")
        elif needle is not None:
            side = "above" if way < 0 else "below"
            self.notify(f"Nothing {side} matches {needle.text!r}.", markup=False)

    def _go_to(self, start: int) -> None:
        self.model.current = start
        self.model.follow(False)
        self.view.forget_strips()
        if self.model.window.find(start) is None:
            self.ask(Ask(way=Way.ANEW, before=start, after=start))
        else:
            self.reveal(start)
            self.look_for_more()
        self.say()

    # Words

    def say(self) -> None:
        """Say how things stand."""
        if not self.is_mounted or self.job is None:
            return
        self.view.notice = self._notice()
        error = self.trouble.error if self.trouble else None
        ended = not self.is_following and self.job["state"] in tasks.RESTING
        found = words.search(self.model, searching=self.is_searching, typing=self.bar.is_open)
        news = "" if self.view.notice else words.news(self.model, ended=ended)
        trouble = words.trouble(error, is_empty=bool(self.view.notice))
        line = self.query_one("#log-line")
        line.set_class(bool(trouble), "-trouble")
        line.set_class(bool(self.model.unseen), "-news")
        self._write("#log-says", trouble, found, news)
        shown = self.view.shown()
        place = words.place(self.model, shown[0].start if shown else None)
        self._write("#log-place", place, "wrapped" if self.view.wrap else "")

    def _write(self, where: str, *parts: str) -> None:
        """Show the parts that are not empty; what is there already costs no drawing."""
        text = " · ".join(filter(None, parts))
        static = self.query_one(where, Static)
        if str(static.content) != text:
            static.update(Content(text))

    def _notice(self) -> str:
        if self.job is None or len(self.model.window):
            return ""
        if why := words.hidden(self.job):
            return why
        if self.trouble and self.trouble.error:
            return words.away(self.trouble.error)
        return words.empty(self.job) if self.model.tail else ""
