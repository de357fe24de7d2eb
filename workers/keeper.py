"""Keeps an engine running: starts it, listens to it, replaces it when it has died or hangs.

The rule this module protects: an engine is believed dead only when its process is. Silence alone
leads to SIGKILL, and what follows from a death is told once the process has gone and all that it
had said has been heard.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon import defaults
from workers.engine.handle import EngineProcess
from workers.protocol import Alive, Happened, Message, Over, Quit, Ready

log = logging.getLogger(__name__)

# Seconds an engine has to be gone after it has closed its socket, or was asked to quit; and the
# most that is waited for the socket's end when the process has gone, for a child may hold it open.
_EXIT_GRACE = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Death:
    """How an engine ended: ``how`` is the rest of a sentence that begins with "the engine"."""

    how: str
    out_of_memory: bool = False


Spawn = Callable[[], EngineProcess]


@dataclass(kw_only=True, slots=True)
class _Backoff:
    """How long to wait before the next engine is started."""

    pause: float = 0.0

    def after(self, lived: float) -> float:
        """Return the seconds to wait after an engine that lived for ``lived`` seconds."""
        if self.pause == 0.0 or lived >= defaults.RESTART_RESET_AFTER:
            self.pause = defaults.RESTART_FIRST
        else:
            self.pause = min(self.pause * defaults.RESTART_FACTOR, defaults.RESTART_MOST)
        return self.pause


@dataclass(kw_only=True, slots=True)
class EngineKeeper:
    """The worker's one engine, whichever process that is at the moment.

    The death of an engine is kept until the runner takes it with ``take_death``.
    """

    spawn: Spawn
    clock: Callable[[], float] = time.monotonic
    silence: float = defaults.HEARTBEAT_EVERY * defaults.HEARTBEATS_MISSED
    device: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    waiting_for: str | None = None
    _engine: EngineProcess | None = None
    _ready: bool = False
    _spawned_at: float = 0.0
    _spawn_at: float = 0.0
    _gone_at: float | None = None
    _death: Death | None = None
    _last_death: Death | None = None
    _backoff: _Backoff = field(default_factory=_Backoff)

    @property
    def ready(self) -> bool:
        """Whether the engine holds the GPU lock and takes jobs."""
        return self._ready and self._gone_at is None

    @property
    def pid(self) -> int | None:
        """The engine's process number, None while there is none."""
        return None if self._engine is None else self._engine.pid

    def send(self, message: Message) -> None:
        """Send a message; without an engine it is dropped, and its attempt ends with the engine."""
        if self._engine is not None:
            self._engine.send(message)

    def poll(self, timeout: float) -> list[Happened | Over]:
        """Wait at most ``timeout`` seconds and return what has been said of attempts."""
        if self._engine is None and not self._start(timeout):
            return []
        engine = self._engine
        assert engine is not None  # noqa: S101 - just started
        engine.wait_readable(timeout)
        try:
            messages = engine.receive()
        except ValueError as error:
            log.error("action=engine_garbled pid=%d error=%s", engine.pid, error)
            messages = []
            engine.kill()
        said = self._sort(messages)
        self._look_after(engine)
        return said

    def _start(self, timeout: float) -> bool:
        """Start an engine if it is time; otherwise wait for that, at most ``timeout``."""
        pause = self._spawn_at - self.clock()
        if pause > 0:
            time.sleep(min(pause, timeout))
            return False
        try:
            self._engine = self.spawn()
        except OSError as error:
            self._note_end(Death(how=f"could not be started: {error}"), lived=0.0)
            return False
        self._spawned_at = self.clock()
        log.info("action=engine_started pid=%d", self._engine.pid)
        return True

    def _sort(self, messages: list[Message]) -> list[Happened | Over]:
        """Keep what the engine says of itself; return what it says of attempts."""
        said: list[Happened | Over] = []
        for message in messages:
            match message:
                case Happened() | Over():
                    said.append(message)
                case Ready():
                    self._note_ready(message)
                case Alive(memory=memory, models=models):
                    self.memory, self.models = memory, models
                case _:
                    log.warning("action=engine_said_odd message=%s", type(message).__name__)
        return said

    def _note_ready(self, ready: Ready) -> None:
        self.waiting_for = ready.waiting_for
        if ready.waiting_for is not None:
            log.info("action=engine_waits reason=%s", ready.waiting_for)
            return
        self._ready = True
        self.device, self.versions = ready.device, ready.versions
        self._last_death = None
        log.info("action=engine_ready pid=%s device=%s", self.pid, ready.device)

    def _look_after(self, engine: EngineProcess) -> None:
        """Kill an engine that has been silent for too long; bury one that has ended."""
        if self.clock() - engine.last_heard > self.silence and engine.returncode is None:
            log.error("action=engine_hangs pid=%d silent=%.0f", engine.pid, self.silence)
            engine.kill()
        if engine.ended or self._is_long_gone(engine):
            self._bury(engine)

    def _is_long_gone(self, engine: EngineProcess) -> bool:
        """Say whether the process ended so long ago that its socket's end will not come."""
        if engine.returncode is None:
            return False
        if self._gone_at is None:
            self._gone_at = self.clock()
        return self.clock() - self._gone_at >= _EXIT_GRACE

    def _bury(self, engine: EngineProcess) -> None:
        """Wait until the process has really gone, say how it ended, and plan the next."""
        if engine.wait(_EXIT_GRACE) is None:
            engine.kill()
            engine.wait(_EXIT_GRACE)
        death = Death(how=engine.describe_exit(), out_of_memory=engine.ran_out_of_memory())
        engine.close()
        self._engine = self._gone_at = None
        self._note_end(death, lived=self.clock() - self._spawned_at)

    def _note_end(self, death: Death, *, lived: float) -> None:
        self._ready = False
        self._death = self._last_death = death
        self.device = self.waiting_for = None
        self.memory, self.models = {}, ()
        self._spawn_at = self.clock() + self._backoff.after(lived)
        log.warning("action=engine_ended how=%s", death.how)

    def take_death(self) -> Death | None:
        """Return how the engine ended, once for each engine that did."""
        death, self._death = self._death, None
        return death

    def kill(self) -> None:
        """Kill the engine; its death is seen by the next ``poll``."""
        if self._engine is not None:
            self._engine.kill()

    def close(self) -> None:
        """Ask the engine to quit, and make sure that it does."""
        if self._engine is None:
            return
        self._engine.send(Quit())
        self._engine.close()
        if self._engine.wait(_EXIT_GRACE) is None:
            self._engine.kill()
            self._engine.wait(_EXIT_GRACE)
        self._engine = None
        self._ready = False

    def report(self, *, busy: bool) -> dict[str, Any]:
        """Return what the worker's row says of the engine."""
        engine = self._engine
        return {
            "state": self._state(busy=busy),
            "pid": self.pid,
            "started": None if engine is None else engine.started,
            "device": self.device,
            "memory": dict(self.memory),
            "models": [Path(path).name for path in self.models],
            "reason": self._reason(),
        }

    def _state(self, *, busy: bool) -> str:
        if self._engine is None:
            return "restarting"
        if not self._ready:
            return "starting" if self.waiting_for is None else "waiting"
        return "busy" if busy else "ready"

    def _reason(self) -> str | None:
        if self.waiting_for is not None:
            return self.waiting_for
        return None if self._last_death is None else f"the last engine {self._last_death.how}"
