"""``studioq show``: everything about one job, on one page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from daemon.cli import units
from daemon.cli.command import command, json_option, open_client, print_json
from daemon.cli.states import changes, coloured, done, note, state_word, title, visible
from daemon.cli.table import Column, render, terminal_width
from daemon.cli.values import job_argument
from daemon.wording import counted

_ATTEMPTS = tuple(
    Column(title=title, right=right, least=least)
    for title, right, least in (
        ("#", True, 0),
        ("state", False, 0),
        ("started", False, 0),
        ("ran", True, 0),
        ("gpu", True, 0),
        ("peak memory", True, 0),
        ("reason", False, 8),
    )
)
_ARTIFACTS = tuple(
    Column(title=title, right=right, least=least)
    for title, right, least in (
        ("name", False, 16),
        ("kind", False, 0),
        ("size", True, 0),
        ("sha256", False, 8),
    )
)
_CHECKPOINTS = frozenset({"checkpoint", "state"})


@command("show", examples=("studioq show 12", "studioq show 12 --json | jq .metrics"))
@job_argument
@json_option
def show(number: int, as_json: bool) -> None:
    """Show a job: its spec, why it waits, attempts, measurements, artifacts and error."""
    job = open_client().job(number)
    if as_json:
        print_json(job)
        return
    for line in render_job(job, datetime.now(UTC), width=terminal_width()):
        click.echo(line)


def render_job(job: Any, now: datetime, *, width: int | None) -> Iterator[str]:
    """Yield the page's lines."""
    name = title(job) if job["name"] or job.get("to") else ""
    yield " · ".join(filter(None, (f"job {job['id']}", job["kind"], name)))
    yield from _indent(_head(job, now))
    yield from _section("error", _error(job))
    yield from _section("spec", _pairs(_told_spec(job["spec"])))
    yield from _section("attempts", _attempts(job, now, width))
    yield from _section("metrics", _pairs(_metrics(job["metrics"])))
    yield from _section("artifacts", _artifacts(job, width))


def _told_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """Leave out the strength of pictures from a text alone, which has nothing to act on."""
    without = {"strength"} if spec.get("image") is None else set()
    return {name: value for name, value in spec.items() if name not in without}


def _metrics(values: dict[str, float]) -> dict[str, str]:
    """Write each measured number, and bytes as sizes."""
    return {name: _metric(name, value) for name, value in values.items()}


def _metric(name: str, value: float) -> str:
    if "bytes" not in name.split("_"):
        return units.number(value)
    return f"{units.size(value)}/s" if name.endswith("_per_second") else units.size(value)


def _head(job: Any, now: datetime) -> list[str]:
    state = coloured(job["state"], state_word(job["state"]))
    told = [part for part in (state, done(job), "" if job.get("error") else note(job)) if part]
    ran = units.running_seconds(job, now)
    return _pairs(
        {
            "state": ", ".join(told),
            "user": job["user"],
            "priority": job["priority"],
            "position": job["position"],
            "after": job.get("after"),
            "begin": units.local_time(job.get("begin_at")),
            "repeats": job.get("repeats"),
            "identical": job.get("identical"),
            "since then": "; ".join(changes(job)),
            "shared": job.get("share") or None,
            "created": units.local_time(job["created_at"]),
            "started": units.local_time(job["started_at"]),
            "ended": units.local_time(job["ended_at"]),
            "ran": units.duration(ran),
        }
    )


def _pairs(values: dict[str, Any]) -> list[str]:
    """Return aligned ``name value`` lines; what is not set is left out."""
    given = {key: _value(value) for key, value in values.items() if value not in (None, "", [])}
    width = max((len(key) for key in given), default=0)
    return [f"{key:<{width}}  {text}" for key, text in given.items()]


def _value(value: Any) -> str:
    """Write a value of a spec: an uploaded file by its name, a long text by its beginning."""
    if isinstance(value, dict):
        if set(value) == {"name", "sha256"}:
            return f"{visible(value['name'])} ({value['sha256'][:12]})"
        parts = (f"{key} {_value(part)}" for key, part in value.items() if part is not None)
        return ", ".join(parts)
    if isinstance(value, list):
        return ", ".join(_value(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value if isinstance(value, str) else str(value)
    escaped = text.replace("\n", "\\n")
    return escaped if len(escaped) <= 400 else f"{escaped[:400]}… ({len(text)} characters)"


def _error(job: Any) -> list[str]:
    error = job.get("error")
    if not error:
        return []
    remedy = [f"remedy: {error['remedy']}"] if error.get("remedy") else []
    return [*str(error["message"]).splitlines(), *remedy]


def _attempts(job: Any, now: datetime, width: int | None) -> list[str]:
    rows = [
        [
            str(attempt["number"]),
            attempt["state"],
            units.local_time(attempt["started_at"]),
            units.duration(units.seconds_between(attempt["started_at"], attempt["ended_at"], now)),
            units.duration(attempt["gpu_seconds"]),
            units.size(attempt["peak_memory_bytes"]),
            attempt["reason"] or "",
        ]
        for attempt in job["attempts"]
    ]
    return _table(_ATTEMPTS, rows, width)


def _artifacts(job: Any, width: int | None) -> list[str]:
    """Return a table of the results, and one line that counts the files of checkpoints."""
    results = [found for found in job["artifacts"] if found["kind"] not in _CHECKPOINTS]
    rows = [
        [found["name"], found["kind"], units.size(found["bytes"]), found["sha256"][:12]]
        for found in results
    ]
    others = len(job["artifacts"]) - len(results)
    more = (
        [f"and {counted(others, 'file')} of checkpoints (studioq fetch {job['id']} --all)"]
        if others
        else []
    )
    return [*_table(_ARTIFACTS, rows, width), *more]


def _table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None
) -> list[str]:
    return render(columns, rows, width=None if width is None else width - 2) if rows else []


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield ""
        yield click.style(title, bold=True)
        yield from _indent(lines)


def _indent(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
