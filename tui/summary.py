"""The Summary tab: one job at a glance.

The rule this module protects: what matters most stands first: why a job does not run, or failed,
and what to do about it; then what it was asked, what it took, what it left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from daemon.cli import units
from daemon.cli.states import changes, note, visible
from daemon.errors import StudioqError
from tui.jobs.columns import GLYPHS
from tui.jobs.table import utc_now
from tui.meters import bar
from tui.pane import JobPane

if TYPE_CHECKING:
    from daemon.client.answers import Job, JobEvent, JobLine

_LONGEST = 300
_BAR = 24
Pairs = Iterator[tuple[str, str]]


def cut(value: Any) -> str:
    """Return a value of a spec as text: on one line, without control characters, not too long."""
    text = visible(str(value).replace("\n", " ⏎ ").replace("\t", " "))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def spec_pairs(spec: Mapping[str, Any], prefix: str = "") -> Pairs:
    """Yield the fields of a spec that say something: nested ones by ``data.train``."""
    for name, value in spec.items():
        if isinstance(value, dict) and "sha256" in value and "name" in value:
            yield f"{prefix}{name}", cut(value["name"])
        elif isinstance(value, dict):
            yield from spec_pairs(value, f"{prefix}{name}.")
        elif value is not None and value not in ([], ""):
            yield f"{prefix}{name}", cut(value)


def time_pairs(job: JobLine | Job, now: datetime) -> Pairs:
    """Yield when a job came, began and ended, and how long it took."""
    for name in ("created_at", "started_at", "ended_at"):
        if job[name]:
            yield name.removesuffix("_at"), units.local_time(job[name])
    ran = units.running_seconds(job, now)
    if ran is not None:
        yield "ran", units.duration(ran)
    memory = job.get("peak_memory_bytes")
    if memory:
        yield "peak memory", units.size(float(str(memory)))


def progress_line(job: JobLine | Job) -> str | None:
    """Return the bar of a job that has begun, None before."""
    progress = job["progress"]
    if not progress or not progress["total"] or progress["done"] is None:
        return None
    share = progress["done"] / progress["total"]
    eta = progress["eta_seconds"]
    left = f", {units.duration(eta)} left" if eta and job["state"] == "running" else ""
    return f"▐{bar(share, _BAR)}▌ {progress['done']}/{progress['total']}{left}"


class SummaryPane(JobPane):
    """What the job is, why it stands where it stands, and its history."""

    HELP = """
# Summary

Why a job does not run or has failed and what helps, what it was asked (its spec with the defaults),
its attempts, the last numbers and its history. Scroll with the arrow keys.
"""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy_number", "Copy number", show=False, id="summary.copy"),
    ]

    def compose(self) -> ComposeResult:
        """Hold one text that scrolls."""
        with VerticalScroll(can_focus=True):
            yield Static(id="text", markup=False)

    def show_job(self, job: JobLine | None) -> None:
        """Show another job: its line at once, the rest when it has come."""
        super().show_job(job)
        if job is None:
            return
        self._draw(job)
        self.query_one(VerticalScroll).scroll_home(animate=False)
        self._fetch(job)

    def update_job(self, job: JobLine) -> None:
        """Ask again for what has changed."""
        super().update_job(job)
        self._fetch(job)

    @work(thread=True, exclusive=True, group="summary")
    def _fetch(self, line: JobLine) -> None:
        try:
            with self.connect() as client:
                job = client.job(line["id"]) if line["readable"] else None
                events = client.events(line["id"]) if line["readable"] else []
        except (StudioqError, OSError):
            return  # the line stays; the top of the screen says that the daemon is away
        self.app.call_from_thread(self._came, line, job, events)

    def _came(self, line: JobLine, job: Job | None, events: list[JobEvent]) -> None:
        if self.job is not None and self.job["id"] == line["id"]:
            self._draw(self.job, job, events)

    def _draw(self, line: JobLine, job: Job | None = None, events: Any = ()) -> None:
        parts = [part for part in self._parts(line, job, list(events)) if part is not None]
        self.query_one("#text", Static).update(Group(*parts))

    def _parts(
        self, line: JobLine, job: Job | None, events: list[JobEvent]
    ) -> Iterator[RenderableType | None]:
        whole: Any = job or line
        yield self._title(line)
        bar_line = progress_line(line)
        yield Text(bar_line) if bar_line else None
        yield from self._troubles(whole)
        yield _pairs(time_pairs(whole, utc_now()))
        if job is None:
            yield (
                None
                if line["readable"]
                else Text(f"\nIts prompt, log and files are {line['user']}'s own.", style="dim")
            )
            return
        yield _section("Asked", spec_pairs(job["spec"]))
        yield _section("Measured", ((name, units.number(n)) for name, n in job["metrics"].items()))
        yield _section("Attempts", _attempts(job))
        yield _section("Repeats", (("", said) for said in changes(job)))
        yield _section("History", _history(events))

    def _title(self, line: JobLine) -> Text:
        name = line["name"] or line["model"] or line["kind"]
        text = Text(visible(f"{line['id']} · {name}"), style="bold")
        text.append(f"\n{GLYPHS.get(line['state'], '?')} {line['state']}", style="not bold")
        said = note(line)
        if said and not line["error"]:
            text.append(f"  {visible(said)}", style="not bold")
        text.append(
            visible(f"\n{line['kind']} of {line['user']}, {line['priority']} priority"),
            style="not bold dim",
        )
        if line["model"]:
            text.append(visible(f", model {line['model']}"), style="not bold dim")
        return text

    @staticmethod
    def _troubles(job: Any) -> Iterator[RenderableType]:
        error = job["error"]
        if error:
            yield Text(visible(f"\n{error['message']}"), style="bold")
            if error.get("remedy"):
                yield Text(visible(f"→ {error['remedy']}"))

    def action_copy_number(self) -> None:
        """Copy the job's number."""
        if self.job is not None:
            self.app.copy_to_clipboard(str(self.job["id"]))
            self.notify(f"copied {self.job['id']}")


def _section(title: str, pairs: Iterator[tuple[str, str]]) -> RenderableType | None:
    table = _pairs(pairs)
    return None if table is None else Group(Text(f"\n{title}", style="underline"), table)


def _pairs(pairs: Iterator[tuple[str, str]]) -> Table | None:
    rows = list(pairs)
    if not rows:
        return None
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table


def _attempts(job: Job) -> Pairs:
    for attempt in job["attempts"]:
        spent = units.duration(attempt["gpu_seconds"]) if attempt["gpu_seconds"] else ""
        reason = visible(attempt["reason"] or "")
        said = " ".join(part for part in (attempt["state"], spent, reason) if part)
        yield str(attempt["number"]), said


def _history(events: list[JobEvent]) -> Pairs:
    for event in events[-30:]:
        actor = f" by {visible(event['actor'])}" if event["actor"] else ""
        yield units.local_time(event["at"])[5:16], event["action"].replace("_", " ") + actor
