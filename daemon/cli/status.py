"""``studioq status``: the daemon and its processes."""

from __future__ import annotations

from typing import Any

import click

from daemon.cli import units
from daemon.cli.command import command, json_option, open_client, print_json


@command("status", examples=("studioq status", "studioq status --json"))
@json_option
def status(as_json: bool) -> None:
    """Show daemon, Redis, worker and engine, and count the jobs (exit 3: no daemon)."""
    print_status(as_json=as_json)


def print_status(*, as_json: bool) -> None:
    """Print the status as a page or as JSON."""
    answer = open_client().status()
    if as_json:
        print_json(answer)
        return
    for title, text in page(answer).items():
        click.echo(f"{title:<7}  {text}")


def page(answer: Any) -> dict[str, str]:
    """Return the page's lines by their titles."""
    me, engine = answer["me"], answer["engine"]
    jobs = ", ".join(f"{count} {state}" for state, count in answer["jobs"].items() if count)
    since = units.local_time(answer["started_at"])
    lines = {
        "daemon": f"studioq {answer['version']}, pid {answer['pid']}, since {since}",
        "home": answer["home"],
        "you": f"{me['name']} (uid {me['uid']}{', admin' if me['admin'] else ''})",
        "redis": _process(answer["redis"], answer["redis"].get("url")),
        "worker": _process(answer["worker"]),
        "engine": _process(engine, engine.get("device"), *_memory(engine)),
        "why": engine.get("reason") or "",
        "models": ", ".join(str(model) for model in engine.get("models") or []),
        "jobs": jobs or "none",
        "queue": "drains: no job is started until studioq resume" if answer["draining"] else "",
    }
    return {title: text for title, text in lines.items() if text}


def _process(found: Any, *more: str | None) -> str:
    pid = f"pid {found['pid']}" if found.get("pid") else None
    return ", ".join(str(part) for part in (found["state"], pid, *more) if part)


def _memory(engine: Any) -> list[str]:
    memory = engine.get("memory") or {}
    shown = ((name, memory.get(name)) for name in ("active", "peak", "cache", "limit"))
    return [f"{name} {units.size(count)}" for name, count in shown if count is not None]
