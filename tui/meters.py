"""The line at the top: what the machine does.

The rule this module protects: a number that nobody has told is not shown, and every state is a word
as well as a colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.reactive import reactive
from textual.widget import Widget

if TYPE_CHECKING:
    from daemon.client.answers import Status

_BAR = 10
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_GOOD = frozenset({"ready", "running", "busy"})
_LIVE = ("running", "paused", "queued", "waiting", "held")


@dataclass(frozen=True, kw_only=True)
class Meter:
    """One group of the line: its name, what it says, and whether that is good, bad or neither.

    ``rank``: the highest is left out first where there is no room.
    """

    name: str
    text: str
    mood: str = "plain"
    rank: int = 0


def bar(share: float, width: int = _BAR) -> str:
    """Draw a share from 0 to 1 in eighths of a cell."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def gigabytes(count: float | None) -> str:
    """Write bytes as gigabytes with as many digits as matter."""
    if count is None:
        return "?"
    size = count / 1e9
    return f"{size:.0f}" if size >= 10 else f"{size:.1f}"


def meters(status: Status) -> list[Meter]:
    """Return what a status says, the most important first."""
    found = [_engine(status["engine"]), *_memory(status["engine"]["memory"])]
    found.append(_process("worker", status["worker"]["state"], rank=3))
    found.append(_process("redis", status["redis"]["state"], rank=4))
    found.append(Meter(name="", text=_queue(status["jobs"]), rank=1))
    if status["draining"]:
        found.append(Meter(name="", text="draining: nothing new starts", mood="warning"))
    return found


def _engine(engine: dict[str, Any]) -> Meter:
    state = engine["state"]
    text = f"{_dot(state)} {state}"
    if state not in _GOOD and engine.get("reason"):
        text += f" ({engine['reason']})"
    return Meter(name="GPU", text=text, mood=_mood(state))


def _memory(memory: dict[str, Any]) -> list[Meter]:
    if memory.get("active") is None:
        return []
    limit = memory.get("limit")
    gauge = f"▐{bar(memory['active'] / limit)}▌ " if limit else ""
    of = f"/{gigabytes(limit)}" if limit else ""
    use = Meter(name="MLX", text=f"{gauge}{gigabytes(memory['active'])}{of} GB", rank=2)
    more = f"peak {gigabytes(memory['peak'])} cache {gigabytes(memory['cache'])}"
    return [use, Meter(name="", text=more, rank=5)]


def _process(name: str, state: str, *, rank: int) -> Meter:
    good = state in _GOOD
    # A process that does what it should is a dot; its word comes where it does not.
    text = _dot(state) if good else f"{_dot(state)} {state}"
    return Meter(name=name, text=text, mood=_mood(state), rank=rank if good else 0)


def _dot(state: str) -> str:
    return "●" if state in _GOOD else "○"


def _mood(state: str) -> str:
    return "success" if state in _GOOD else "warning"


def _queue(counts: dict[str, int]) -> str:
    said = [f"{counts[state]} {state}" for state in _LIVE if counts.get(state)]
    return ", ".join(said) or "nothing to do"


def fit(found: list[Meter], width: int) -> list[Meter]:
    """Return those that fit a line of ``width`` cells."""
    shown = list(found)
    while len(shown) > 1 and _length(shown) > width:
        last = max(shown, key=lambda meter: meter.rank)
        if last.rank == 0:
            break
        shown.remove(last)
    return shown


def _length(shown: list[Meter]) -> int:
    return sum(len(meter.name) + len(meter.text) + 1 for meter in shown) + 2 * len(shown)


class Meters(Widget):
    """The meters of a status, or what is wrong with the connection."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "meters--name",
        "meters--success",
        "meters--warning",
        "meters--error",
    }

    status: reactive[Status | None] = reactive(None)
    trouble: reactive[str | None] = reactive(None)

    def render(self) -> Text:
        """Draw one line."""
        if self.trouble is not None:
            return Text(self.trouble, style=self._style("error"), overflow="ellipsis", no_wrap=True)
        if self.status is None:
            return Text("connecting …", style=self._style("name"))
        line = Text(no_wrap=True, overflow="ellipsis")
        for meter in fit(meters(self.status), self.size.width):
            if line:
                line.append("  ")
            if meter.name:
                line.append(f"{meter.name} ", style=self._style("name"))
            plain = meter.mood == "plain"
            line.append(meter.text, style="" if plain else self._style(meter.mood))
        return line

    def _style(self, name: str) -> Any:
        return self.get_component_rich_style(f"meters--{name}", partial=True)
