"""What worker and engine say to each other: one JSON object per line over a socketpair.

Every message about a job names its attempt by the fencing number, so that several attempts can be
alive in one engine and a late message of an ended one is recognised and dropped. Standard library
only. JSON's NaN and Infinity are refused in both directions.

worker → engine: ``Start``, ``Ask``, ``Evict``, ``Quit``
engine → worker: ``Ready``, ``Alive``, ``Happened``, ``Over``
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workers import events
from workers.events import Event


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Run an attempt. Paths are absolute; see ``workers.kinds.Context`` for their meaning."""

    attempt: int
    job: int
    number: int
    kind: str
    spec: Mapping[str, Any]
    folder: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None
    adapter: str | None = None
    checkpoint: str | None = None
    target: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """Ask a running attempt to ``cancel``, ``finish`` or ``stop`` at its next safe point."""

    attempt: int
    request: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Evict:
    """Drop every model that no attempt is using."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quit:
    """End the process; what still runs is closed without an outcome."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """The engine holds the GPU lock and can take jobs.

    ``waiting_for`` is set while another process holds the lock (a sentence that names it); the
    engine is then not ready, and says so again without it when it has the lock.
    """

    device: str
    versions: Mapping[str, str] = field(default_factory=dict)
    waiting_for: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Alive:
    """A sign of life every few seconds: memory in bytes, and the paths of warm models."""

    memory: Mapping[str, int] = field(default_factory=dict)
    models: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Happened:
    """An event of an attempt, and when it was, in seconds since 1970."""

    attempt: int
    at: float
    event: Event


@dataclass(frozen=True, kw_only=True, slots=True)
class Over:
    """An attempt has ended; ``state`` is an attempt's end as the ledger names it.

    ``error`` is ``StudioqError.to_dict()`` where it failed.
    """

    attempt: int
    state: str
    peak_memory_bytes: int | None = None
    error: Mapping[str, Any] | None = None


Message = Start | Ask | Evict | Quit | Ready | Alive | Happened | Over

_MESSAGES: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Start, Ask, Evict, Quit, Ready, Alive, Happened, Over)
}
_EVENTS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        events.SafePoint,
        events.Progress,
        events.Metric,
        events.Log,
        events.Text,
        events.Facts,
        events.Artifact,
        events.Checkpoint,
        events.Stopped,
    )
}


def encode(message: Message) -> bytes:
    """Return the message as one line of JSON.

    Raises:
        ValueError: a number in it is not finite.
    """
    body = {name: getattr(message, name) for name in _fields(type(message))}
    if isinstance(message, Happened):
        event = message.event
        body["event"] = {
            "is": type(event).__name__,
            **{name: getattr(event, name) for name in _fields(type(event))},
        }
    body["is"] = type(message).__name__
    return json.dumps(body, allow_nan=False, separators=(",", ":"), default=dict).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Rebuild a message from its line.

    Raises:
        ValueError: the line is not one of ours.
    """
    try:
        return _message(json.loads(line, parse_constant=_refuse))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a message: {line[:200]!r} ({error})") from None


def _message(body: dict[str, Any]) -> Message:
    kind = _MESSAGES[body.pop("is")]
    if kind is Happened:
        body["event"] = _event(body["event"])
    if kind is Alive:
        body["models"] = tuple(body["models"])
    message: Message = kind(**body)
    return message


def _event(body: dict[str, Any]) -> Event:
    kind = _EVENTS.get(body.pop("is", ""))
    if kind is None:
        raise ValueError(f"not an event: {body!r}")
    if kind is events.Checkpoint:
        body["files"] = tuple(body["files"])
    event: Event = kind(**body)
    return event


def _fields(kind: type[Any]) -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(kind))


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
