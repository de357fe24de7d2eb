"""The engine's heart: it gives each live attempt its turn, one event at a time.

The rule this module protects: jobs yield, and the loop alone decides what happens at a safe point.
Whatever a job raises ends that attempt and nothing else, and nothing of it stays in memory.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import cast

from daemon.errors import JobError
from daemon.specs import load_spec
from workers.engine.outbox import Outbox
from workers.engine.outcomes import End, Outcome, failure, log_traceback
from workers.engine.random_states import RandomStates
from workers.events import Event, Stopped
from workers.kinds import KINDS, Context, Control, Kind, Request
from workers.memory import free_unused
from workers.models import ModelCache
from workers.own_memory import OwnMemory
from workers.protocol import Ask, Evict, Message, Over, Quit, Start

Events = Generator[Event, None, None]

# Bytes of MLX memory after which an ended attempt is worth a garbage collection (milliseconds);
# a job that did nothing has only moved a random key or two.
_NEGLIGIBLE = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Terminate:
    """SIGTERM came: stop every attempt at a checkpoint, then quit."""


Inbox = SimpleQueue[Message | Terminate]


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """A live attempt: its fencing number, its generator, and the wish it looks at."""

    fence: int
    kind: Kind
    folder: Path
    events: Events
    control: Control
    memory: OwnMemory
    seed: int


class Loop:
    """Runs attempts until it is told to quit."""

    def __init__(
        self,
        inbox: Inbox,
        outbox: Outbox,
        models: ModelCache,
        kinds: Mapping[str, Kind] = KINDS,
    ) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._models = models
        self._kinds = kinds
        self._attempts: dict[int, Attempt] = {}
        self._random = RandomStates()
        self._terminating = False
        self._quitting = False

    def run(self) -> None:
        """Serve until ``Quit`` comes; what then still lives is closed without an outcome."""
        while not self._quitting:
            self._take_messages()
            for attempt in tuple(self._attempts.values()):
                self._turn(attempt)
        for attempt in self._attempts.values():
            _close(attempt)

    def _take_messages(self) -> None:
        """Obey what has come; with nothing to run, wait for the next."""
        while not self._quitting and not (self._attempts and self._inbox.empty()):
            self._obey(self._inbox.get())

    def _obey(self, message: Message | Terminate) -> None:
        match message:
            case Start():
                self._start(message)
            case Ask():
                self._ask(message.attempt, message.request)
            case Evict():
                self._models.clear()
            case Quit():
                self._quitting = True
            case Terminate():
                self._terminate()
            case _:
                _note(f"{type(message).__name__} is not for the engine")

    def _start(self, start: Start) -> None:
        """Prepare an attempt; its generator runs for the first time when it gets its turn."""
        if start.attempt in self._attempts or self._terminating:
            _note(f"attempt {start.attempt} is not started: it runs already, or the engine ends")
            return
        try:
            attempt = self._prepare(start)
        except Exception as error:  # noqa: BLE001 - every fault of a job is that job's end
            outcome = failure(error, Path(start.folder))
        else:
            self._random.begin(attempt.fence, attempt.seed)
            self._attempts[attempt.fence] = attempt
            return
        self._outbox.end(_over(start.attempt, outcome))

    def _prepare(self, start: Start) -> Attempt:
        """Build an attempt from its message; nothing of it runs yet."""
        kind = self._kinds.get(start.kind)
        if kind is None:
            raise JobError(
                f"the engine knows no job kind {start.kind!r}",
                remedy="restart the worker: it may be older than the daemon",
            )
        context = _context(start, self._models)
        return Attempt(
            fence=start.attempt,
            kind=kind,
            folder=context.folder,
            events=cast("Events", kind.load()(context)),
            control=context.control,
            memory=context.memory,
            seed=context.spec.seed,
        )

    def _ask(self, fence: int, request: str) -> None:
        """Pass a wish on; one for an attempt that is over or cancelled is late, and ignored."""
        attempt = self._attempts.get(fence)
        if attempt is None or attempt.control.request is Request.CANCEL:
            return
        if request == Request.CANCEL and not attempt.control.unpublished:
            self._close_with(attempt, End.CANCELLED)
        elif request == Request.STOP and not attempt.kind.checkpoints:
            self._close_with(attempt, End.STOPPED)
        elif request in list(Request):
            attempt.control.request = Request(request)
        else:
            _note(f"nobody knows what {request!r} asks of attempt {fence}")

    def _terminate(self) -> None:
        """Ask every attempt to stop; the last one's end is the engine's."""
        self._terminating = True
        for fence in tuple(self._attempts):
            self._ask(fence, Request.STOP)
        self._quitting = not self._attempts

    def _turn(self, attempt: Attempt) -> None:
        """Let an attempt run to its next safe point."""
        self._random.enter(attempt.fence)
        try:
            event = next(attempt.events)
            if not isinstance(event, Stopped):
                self._outbox.post(attempt.fence, event)
                return
            outcome = Outcome(end=End.STOPPED)
        except StopIteration:
            outcome = Outcome(end=End.SUCCEEDED)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - ends this attempt only
            outcome = failure(error, attempt.folder)
        self._end(attempt, outcome)

    def _close_with(self, attempt: Attempt, end: End) -> None:
        self._random.enter(attempt.fence)
        self._end(attempt, Outcome(end=end))

    def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        """Close an attempt, forget it and say how it ended: cancelled, if it was asked to be."""
        if attempt.control.request is Request.CANCEL:
            outcome = Outcome(end=End.CANCELLED)
        _close(attempt)
        del self._attempts[attempt.fence]
        self._random.end(attempt.fence)
        self._report_end(attempt, outcome)
        self._quitting = self._quitting or (self._terminating and not self._attempts)

    def _report_end(self, attempt: Attempt, outcome: Outcome) -> None:
        """Say how an attempt ended, then give back the memory it used, if it used any."""
        used = attempt.memory.peak()
        attempt.memory.end()
        self._outbox.end(_over(attempt.fence, outcome, used))
        if used > _NEGLIGIBLE and not self._attempts:
            free_unused()


def _over(fence: int, outcome: Outcome, used: int | None = None) -> Over:
    """Return the message of an end; nothing ``used`` if nothing of the attempt ran."""
    return Over(attempt=fence, state=outcome.end, peak_memory_bytes=used, error=outcome.error)


def _context(start: Start, models: ModelCache) -> Context:
    """Rebuild from a message what the job kind gets."""
    return Context(
        job=start.job,
        attempt=start.number,
        spec=load_spec(start.kind, start.spec),
        folder=Path(start.folder),
        models=models,
        inputs={place: Path(path) for place, path in start.inputs.items()},
        model=_path(start.model),
        adapter=_path(start.adapter),
        checkpoint=_path(start.checkpoint),
        target=_path(start.target),
    )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _close(attempt: Attempt) -> None:
    """Let the generator clean up; what it raises then changes nothing any more."""
    try:
        attempt.events.close()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is over all the same
        log_traceback(error)


def _note(text: str) -> None:
    """Write a line to the engine's log."""
    sys.stderr.write(f"studioq-engine: {text}\n")
    sys.stderr.flush()
