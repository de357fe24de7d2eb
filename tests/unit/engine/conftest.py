"""Runs the engine's real loop in this process, over job kinds that a test writes as generators."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import pytest

from workers.engine.loop import Inbox, Loop
from workers.engine.outbox import Outbox
from workers.events import Event
from workers.kinds import Context, Kind, Runner
from workers.models import ModelCache
from workers.protocol import Happened, Message, Over, Quit, Start, decode


@dataclass(frozen=True, kw_only=True)
class ScriptedKind(Kind):
    """A kind whose generator is at hand."""

    runner: Runner

    def load(self) -> Runner:
        return self.runner


@dataclass
class Engine:
    """A loop with its inbox; quits when every attempt that was started is over."""

    folder: Path
    said: list[Message] = field(default_factory=list)
    inbox: Inbox = field(default_factory=SimpleQueue)
    kinds: dict[str, Kind] = field(default_factory=dict)
    clock: Callable[[], float] = field(default_factory=lambda: itertools.count(0.0, 1.0).__next__)
    started: int = 0

    def script(
        self, runner: Callable[[Context], Iterator[Event]], *, checkpoints: bool = True
    ) -> None:
        """Let jobs of kind noop run ``runner``."""
        self.kinds["noop"] = ScriptedKind(
            name="noop", module="", checkpoints=checkpoints, runner=runner
        )

    def start(self, attempt: int, *, kind: str = "noop", **spec: object) -> None:
        self.started += 1
        self.inbox.put(
            Start(
                attempt=attempt,
                job=attempt,
                number=1,
                kind=kind,
                spec={"seed": attempt, **spec},
                folder=str(self.folder / str(attempt)),
            )
        )

    def run(self) -> None:
        models = ModelCache(1 << 30, lambda: 0.0)
        outbox = Outbox(self._hear, clock=self.clock, now=lambda: 0.0)
        Loop(self.inbox, outbox, models, self.kinds).run()

    def over(self, attempt: int) -> Over:
        """Return the one end of ``attempt``."""
        (found,) = (end for end in self._ends() if end.attempt == attempt)
        return found

    def events(self, attempt: int) -> list[Event]:
        return [
            message.event
            for message in self.said
            if isinstance(message, Happened) and message.attempt == attempt
        ]

    def _hear(self, line: bytes) -> None:
        self.said.append(decode(line))
        if len(self._ends()) == self.started:
            self.inbox.put(Quit())

    def _ends(self) -> list[Over]:
        return [message for message in self.said if isinstance(message, Over)]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(folder=tmp_path)
