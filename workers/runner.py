"""Runs claimed attempts in the engine and sees each to its end.

The rule this module protects: whatever happens to the engine, the ledger or the disk, an attempt
that was begun here gets exactly one ending. Knows nothing of Redis or RQ.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.exc import OperationalError

from daemon import defaults
from daemon.errors import StudioqError
from daemon.ledger import attempts as ledger_attempts
from daemon.ledger.attempts import Claim
from daemon.ledger.states import AttemptState, Wish
from daemon.ledger.store import Ledger
from daemon.locate import Paths
from daemon.models import ModelRoots
from workers.attempts import AttemptTable, Cause, LiveAttempt
from workers.endings import ending_of, ending_of_death, failed, never_began, preparation_error
from workers.keeper import Death, EngineKeeper
from workers.protocol import Ask, Happened, Over
from workers.recorder import Follow, Recorder
from workers.resolve import Resolved, resolve

log = logging.getLogger(__name__)

# Seconds between two looks at what users wish: four a second, as progress is written.
_LOOK_EVERY = 0.25

# Seconds that a look is good for when something is about to be written.
_LOOK_FRESH = 0.1

# Seconds between two tries to write an ending whose files are still being hashed.
_ENDING_EVERY = 0.02

_REQUESTS = {
    Cause.STOP: "stop",
    Cause.TIME_LIMIT: "cancel",
    Cause.CANCEL: "cancel",
    Cause.FAULT: "cancel",
    Cause.FENCED: "cancel",
}


@dataclass(frozen=True, kw_only=True)
class Graces:
    """Seconds an attempt has to obey before its engine is killed."""

    cancel: float = defaults.CANCEL_GRACE
    stop: float = defaults.STOP_GRACE


@dataclass(kw_only=True, slots=True)
class Runner:
    """Attempts in the engine. ``clock`` measures durations, ``now`` dates rows; in seconds.

    ``follow`` is run in the transaction that writes the ending of the last attempt.
    """

    ledger: Ledger
    paths: Paths
    roots: ModelRoots
    keeper: EngineKeeper
    recorder: Recorder
    clock: Callable[[], float]
    now: Callable[[], float]
    graces: Graces = field(default_factory=Graces)
    table: AttemptTable = field(default_factory=AttemptTable)
    stopping: bool = False
    follow: Follow | None = None
    last_end: AttemptState | None = None
    _model_names: dict[str, str] = field(default_factory=dict)
    _looked_at: float = 0.0

    def warm_models(self) -> set[str]:
        """Return the names of the models that the engine has loaded, as jobs name them."""
        loaded = self.keeper.models
        return {self._model_names[path] for path in loaded if path in self._model_names}

    def start(self, claim: Claim) -> None:
        """Hand a claimed attempt to the engine; if it cannot start, its ending waits instead."""
        attempt = LiveAttempt(
            claim=claim,
            folder=self.paths.attempt(claim.job_id, claim.number),
            started=self.clock(),
        )
        try:
            resolved = self._resolve(attempt)
        except OperationalError:
            # The ledger is busy, not the job at fault: the worker takes the claim up again.
            raise
        except Exception as error:  # noqa: BLE001 - or this job would stop the queue for everybody
            attempt.ending = failed(self._unprepared(attempt, error))
            self.table.add(attempt)
            return
        self.table.add(attempt)
        attempt.started = self.clock()
        if claim.number == 1:
            # The claim has just seen that nobody wishes anything; of a later attempt, one may.
            self._looked_at = attempt.started
        if not self.keeper.ready:
            attempt.ending = never_began()
            return
        self.keeper.send(resolved.start)
        if self.stopping:
            self._ask(attempt, Cause.STOP)

    def _resolve(self, attempt: LiveAttempt) -> Resolved:
        claim = attempt.claim
        with self.ledger.reading() as session:
            resolved = resolve(session, claim, paths=self.paths, roots=self.roots)
        if resolved.step is not None:
            with self.ledger.writing() as session:
                ledger_attempts.set_resumed_step(session, claim.fence, resolved.step)
        if resolved.start.model is not None and claim.model is not None:
            self._model_names[str(Path(resolved.start.model).resolve())] = claim.model
        self.recorder.begin(attempt, resolved.step)
        return resolved

    @staticmethod
    def _unprepared(attempt: LiveAttempt, error: Exception) -> StudioqError:
        """Return what the user reads; what nobody foresaw has its traceback in the log."""
        known = preparation_error(error)
        if known is not error:
            log.error("action=job_unprepared job=%d", attempt.claim.job_id, exc_info=error)
        return known

    def tick(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for the engine, then do all that is due."""
        for message in self.keeper.poll(self._wait(timeout)):
            self._take(message)
        death = self.keeper.take_death()
        if death is not None:
            self._engine_died(death)
        if not self.table:
            return
        self._look()
        self._enforce()
        self.recorder.flush(self.table.running())
        self._write_endings()

    def _wait(self, timeout: float) -> float:
        """Return how long the engine may be waited for: until something else is due."""
        if self.table.ended():
            return min(timeout, _ENDING_EVERY)
        due = self.recorder.due_in()
        return timeout if due is None else min(timeout, due)

    def _take(self, message: Happened | Over) -> None:
        attempt = self.table.get(message.attempt)
        if attempt is None or attempt.ending is not None:
            return
        if isinstance(message, Happened):
            self.recorder.take(attempt, message)
        else:
            attempt.ending = ending_of(attempt, message, attempt.running_seconds(self.clock()))

    def _engine_died(self, death: Death) -> None:
        running = self.table.running()
        for attempt in running:
            seconds = attempt.running_seconds(self.clock())
            attempt.ending = ending_of_death(attempt, death, seconds, alone=len(running) == 1)

    def _look(self) -> None:
        """Ask the ledger what users wish, and whether the attempts may still write."""
        fresh = _LOOK_FRESH if self.recorder.due_in() == 0.0 else _LOOK_EVERY
        if self.clock() < self._looked_at + fresh:
            return
        fences = [attempt.fence for attempt in self.table]
        try:
            with self.ledger.reading() as session:
                wishes = ledger_attempts.standing_wishes(session, fences)
        except OperationalError as error:
            log.warning("action=look_failed error=%s", error.orig)
            return
        self._looked_at = self.clock()
        for attempt in self.table:
            self._obey(attempt, wishes)

    def _obey(self, attempt: LiveAttempt, wishes: dict[int, Wish | None]) -> None:
        if attempt.fence not in wishes:
            self._ask(attempt, Cause.FENCED)
        elif wishes[attempt.fence] is Wish.CANCEL:
            self._ask(attempt, Cause.CANCEL)
        elif wishes[attempt.fence] is Wish.FINISH and not attempt.finishing:
            attempt.finishing = True
            self.keeper.send(Ask(attempt=attempt.fence, request="finish"))

    def _enforce(self) -> None:
        """End what overran its limit or cannot be recorded; kill an engine that does not obey."""
        clock = self.clock()
        for attempt in self.table.running():
            if attempt.error is not None:
                self._ask(attempt, Cause.FAULT)
            if attempt.overran(clock):
                self._ask(attempt, Cause.TIME_LIMIT)
            if attempt.kill_at is not None and clock >= attempt.kill_at:
                log.warning("action=engine_disobeys job=%d", attempt.claim.job_id)
                self.keeper.kill()

    def _ask(self, attempt: LiveAttempt, cause: Cause) -> None:
        """Ask the engine to end an attempt, unless there was as strong a reason before."""
        grace = self.graces.stop if cause is Cause.STOP else self.graces.cancel
        if attempt.give_reason(cause, self.clock() + grace):
            log.info("action=ask job=%d cause=%s", attempt.claim.job_id, cause.name.lower())
            self.keeper.send(Ask(attempt=attempt.fence, request=_REQUESTS[cause]))

    def _write_endings(self) -> None:
        for attempt in self.table.ended():
            follow = self.follow if len(self.table) == 1 else None
            if attempt.ending is None or not self.recorder.end(attempt, follow):
                continue
            self.table.remove(attempt)
            self.last_end = attempt.ending.state
            log.info(
                "action=attempt_ended job=%d attempt=%d state=%s",
                attempt.claim.job_id,
                attempt.claim.number,
                attempt.ending.state,
            )

    def stop(self) -> None:
        """Ask every attempt to write a checkpoint and end; new ones end the same way."""
        self.stopping = True
        for attempt in self.table.running():
            self._ask(attempt, Cause.STOP)

    def hurry(self) -> None:
        """Give the attempts no more time to stop."""
        for attempt in self.table.running():
            attempt.kill_at = self.clock()
