"""How a job's state looks: glyph, word and colour, and the one line that explains it.

The rule it protects: colour and glyph repeat what the word says, so nothing is lost without them.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from daemon.cli.units import duration

STATES = ("held", "waiting", "queued", "running", "paused", "succeeded", "failed", "cancelled")

_GLYPHS = dict(zip(STATES, "◇◌○●◐✓✗⊘", strict=True))
_COLOURS = {
    "running": "cyan",
    "paused": "yellow",
    "succeeded": "green",
    "failed": "red",
    "held": "yellow",
    "waiting": "bright_black",
    "cancelled": "bright_black",
}

# Digits of a SHA-256.
_HASH_DIGITS = 64


def state_word(state: str) -> str:
    """Return glyph and word; the word alone where stdout cannot carry the glyph."""
    glyph = _GLYPHS.get(state, "")
    return f"{glyph} {state}" if glyph and _shows_glyphs() else state


def _shows_glyphs() -> bool:
    return (sys.stdout.encoding or "ascii").lower().startswith("utf")


def coloured(state: str, text: str) -> str:
    """Colour a text by state; ``click.echo`` takes the colour away where there is no terminal."""
    colour = _COLOURS.get(state)
    return click.style(text, fg=colour) if colour else text


def title(job: Any) -> str:
    """Return a job's name; of one without, its model, and what a conversion makes of it."""
    model = job.get("model") or ""
    arrow = "→" if _shows_glyphs() else "->"
    made = f"{model} {arrow} {job['to']}" if job.get("to") else model
    return str(job["name"] or made)


def done(job: Any) -> str:
    """Return how far a job is in per cent, or nothing before it started."""
    progress = job.get("progress") or {}
    total, count = progress.get("total"), progress.get("done")
    return f"{100 * count // total}%" if total and count is not None else ""


def note(job: Any) -> str:
    """Return the one line that explains a job's state."""
    error = job.get("error")
    if error:
        return str(error["message"]).splitlines()[0]
    eta = (job.get("progress") or {}).get("eta_seconds")
    if job["state"] == "running" and eta:
        return f"{duration(eta)} left"
    if job.get("reason"):
        return str(job["reason"])
    return "next" if job["state"] == "queued" and job.get("position") == 1 else ""


def changes(job: Any) -> list[str]:
    """Return a clause for each thing that a repeated job was made with and the first one was not.

    ``the model shapes has changed (3f2a… to 9c1b…)``, ``mlx has changed (0.32.3 to 0.32.4)``.
    """
    return [
        f"{_thing(name, job)} has changed ({_short(then)} to {_short(now)})"
        for name, (then, now) in (job.get("changed") or {}).items()
    ]


def _thing(name: str, job: Any) -> str:
    if name in {"model_fingerprint", "model_sha256"}:
        return f"the model {job['model']}"
    if name.startswith("adapter_"):
        return "the adapter" if name == "adapter_sha256" else "the adapter's configuration"
    return name.removeprefix("version_")


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:8]}…" if len(text) == _HASH_DIGITS else text


def visible(text: str) -> str:
    """Return text whose control characters, but line ends and tabs, are shown and not obeyed.

    Generated text and names come from models and other people; an escape sequence could rewrite the
    screen or the window's title.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
