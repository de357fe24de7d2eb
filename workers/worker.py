"""The RQ worker: claims the next job from the ledger and sees it through.

The rule this module protects: Redis only wakes it and shows it; the ledger says what is next, and
nothing after a claim needs Redis. So RQ's own loop, which takes what it finds in Redis and quits
when Redis is away, is replaced. Signals set a flag and nothing else.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from redis import Redis, RedisError
from rq.serializers import JSONSerializer
from rq.worker.base import BaseWorker
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from daemon import defaults, scheduler
from daemon.errors import StudioqError
from daemon.ledger import attempts
from daemon.ledger.attempts import Claim
from daemon.ledger.revision import current_revision, standing
from daemon.ledger.states import AttemptState
from daemon.ledger.workers import end_worker, report_worker
from daemon.queue.dispatch import wake_key
from daemon.queue.job import Dispatch, Job, parse_id
from daemon.queue.queue import Queue
from workers.bookkeeping import Bookkeeping
from workers.runner import Runner
from workers.takeover import end_abandoned

log = logging.getLogger(__name__)

# Seconds between two reports of a busy and of an idle worker, without a change.
REPORT_BUSY = 2.0
REPORT_IDLE = 10.0

# Seconds the loop waits for the engine at most; a signal or a report may be due.
_TICK = 0.25

# Seconds after which a job that still runs is shown to RQ's tools as started; for a shorter one
# that would cost more than the job.
SHORT = 0.05

# Seconds the loop rests after an error that it did not expect.
_PAUSE = 1.0


class StudioqWorker(BaseWorker):  # type: ignore[misc]
    """A worker of RQ's kind, with a loop of its own and no work-horse."""

    queue_class = Queue
    job_class = Job

    def __init__(
        self,
        *,
        name: str,
        ledger_id: str,
        runner: Runner,
        connection: Redis,
        waiting: Redis,
    ) -> None:
        """Make a worker; ``waiting`` is a client whose timeout is longer than the wait."""
        super().__init__(
            [Queue(connection=connection)],
            name=name,
            connection=connection,
            serializer=JSONSerializer,
            prepare_for_work=False,
        )
        self.hostname, self.pid = socket.gethostname(), os.getpid()
        self._ledger_id = ledger_id
        self._runner = runner
        self._waiting = waiting
        self._clock: Callable[[], float] = runner.clock
        self._now: Callable[[], float] = runner.now
        self._bookkeeping = Bookkeeping(self, connection, clock=runner.clock)
        self._started_at = runner.now()
        self._signals = 0
        self._obeyed = 0
        # Whether an attempt of ours may be in the ledger that is not in the table.
        self._unsure = False
        self._recovered = False
        # What was claimed in the transaction that ended the job before.
        self._claimed: Claim | None = None
        runner.follow = self._claim_next
        # The ledger's revision at which there was nothing to do.
        self._idle_at: int | None = None
        self._reported: tuple[object, ...] = ()
        self._reported_at = 0.0
        self._reported_busy = False

    def _set_connection(self, connection: Redis) -> Redis:
        """Leave the timeouts alone; RQ would raise them to minutes."""
        return connection

    def handle_payload(self, message: object) -> None:
        """Obey nothing that comes over pub/sub: users' wishes are in the ledger."""

    def check_for_suspension(self, burst: bool) -> None:
        """Ignore RQ's suspension: ``studioq drain`` is in the ledger."""

    def clean_registries(self) -> None:
        """Clean nothing: RQ's clean-up imports names found in Redis and fails live jobs."""

    def clean_group_registries(self) -> None:
        """Clean nothing: studioq has no groups, and reading them unpickles."""

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Note that the process is to end; the loop looks."""
        del signum, frame
        self._signals += 1

    request_force_stop = request_stop

    def work(self, *_args: object, **_options: object) -> bool:
        """Run jobs until a signal comes; return whether the end was orderly."""
        self._install_signal_handlers()
        try:
            while self._runner.table or self._claimed or not self._signals:
                self._try_turn()
        finally:
            self._leave()
        return True

    def _try_turn(self) -> None:
        """Take one turn; nothing that goes wrong in it ends the worker."""
        try:
            self._turn()
        except OperationalError as error:
            log.warning("action=ledger_busy error=%s", error.orig)
            self._unsure = True
        except Exception:
            log.exception("action=worker_stumbled")
            self._unsure = True
            time.sleep(_PAUSE)

    def _turn(self) -> None:
        self._tick(0.0)
        self._report()
        self._bookkeeping.beat()
        if self._runner.table:
            self._see_through()
        claim = self._next_claim()
        if claim is not None:
            self._execute_claim(claim)
        elif not self._signals:
            self._rest()

    def _tick(self, timeout: float) -> None:
        """Let the runner work; what was claimed with an ending that is tried again is void."""
        if self._runner.table:
            self._claimed = None
        self._runner.tick(timeout)

    def _may_claim(self) -> bool:
        return self._runner.keeper.ready and not self._signals

    def _rest(self) -> None:
        """Sleep until something may be new, a second at most."""
        if not self._runner.keeper.ready:
            self._runner.tick(_TICK)
            return
        try:
            if self._waiting.blpop([wake_key(self._ledger_id)], timeout=defaults.WAKE_TIMEOUT):
                # A token says that there is news; the ledger need not be asked whether.
                self._idle_at = None
        except RedisError as error:
            log.debug("action=redis_away error=%s", error)
            self._runner.tick(defaults.WAKE_TIMEOUT)

    def _next_claim(self) -> Claim | None:
        """Claim the job that the scheduler puts first, or find one that was claimed before."""
        claim, self._claimed = self._claimed, None
        if claim is not None or not self._may_claim():
            return claim
        if not self._recovered:
            end_abandoned(self._runner.ledger, worker=self.name, now=self._now)
            self._recovered = True
        if self._unsure:
            claim = self._lost_claim()
            self._unsure = claim is not None
        if claim is None and self._has_news():
            claim = self._claim()
        return claim

    def _lost_claim(self) -> Claim | None:
        """Return a live attempt of this worker that nobody executes."""
        with self._runner.ledger.reading() as session:
            live = attempts.live_attempts(session, self.name)
        return next((claim for claim in live if not self._runner.table.get(claim.fence)), None)

    def _has_news(self) -> bool:
        """Return whether the ledger has changed since there was nothing to do."""
        if self._idle_at is None:
            return True
        with self._runner.ledger.reading() as session:
            return current_revision(session) != self._idle_at

    def _claim(self) -> Claim | None:
        self._unsure = True
        with self._runner.ledger.writing() as session:
            claim = self._claim_in(session)
        self._unsure = False
        return claim

    def _claim_in(self, session: Session) -> Claim | None:
        """Claim the job that the scheduler puts first, in the caller's transaction."""
        revision, draining = standing(session)
        warm, now = self._runner.warm_models(), self._now()
        number = None if draining else scheduler.choose(session, warm=warm, now=now)
        self._idle_at = revision if number is None else None
        if number is None:
            return None
        device = self._runner.keeper.device
        return attempts.claim(session, number, worker=self.name, device=device, now=now)

    def _claim_next(self, session: Session) -> None:
        """Claim a further job in the transaction that ends one; what fails here is tried later."""
        self._claimed = None
        if not self._may_claim() or self._unsure:
            return
        try:
            with session.begin_nested():
                self._claimed = self._claim_in(session)
        except (SQLAlchemyError, StudioqError) as error:
            log.warning("action=claim_failed error=%s", error)

    def _execute_claim(self, claim: Claim) -> None:
        """Hand the attempt to the engine and execute the RQ job of the claim."""
        dispatch = Dispatch(ledger_id=self._ledger_id, job=claim.job_id, dispatch=claim.dispatch)
        self._unsure = True
        self._runner.start(claim)
        self._unsure = False
        try:
            self.execute_job(Job.of(self.connection, dispatch), self.queues[0])
        finally:
            succeeded = self._runner.last_end is AttemptState.SUCCEEDED
            self._bookkeeping.ended(dispatch, succeeded=succeeded)

    def execute_job(self, job: Job, queue: Queue) -> None:
        """See the live attempts to their ends; they were handed to the engine before."""
        del queue
        self._tick(SHORT)
        dispatch = parse_id(job.id)
        if self._runner.table and dispatch is not None:
            self._bookkeeping.started(dispatch)
        self._see_through()

    def _see_through(self) -> None:
        """Tick until no attempt is left. A further job could be claimed here while one runs."""
        while self._runner.table:
            self._pass_signals_on()
            self._tick(_TICK)
            self._report()
            self._bookkeeping.beat()

    def _pass_signals_on(self) -> None:
        """Ask the attempts to stop at the first signal, and end them at the second."""
        if self._signals == self._obeyed:
            return
        self._obeyed = self._signals
        self._runner.stop()
        if self._signals > 1:
            self._runner.hurry()

    def _report(self) -> None:
        """Write the worker's row: at a change at once, otherwise now and then."""
        busy = bool(self._runner.table)
        engine = self._runner.keeper.report(busy=busy)
        changed = self._changed(engine)
        every = REPORT_BUSY if busy or self._reported_busy else REPORT_IDLE
        if not changed and self._clock() < self._reported_at + every:
            return
        self._reported_at, self._reported_busy = self._clock(), busy
        try:
            with self._runner.ledger.writing() as session:
                report_worker(
                    session,
                    name=self.name,
                    pid=os.getpid(),
                    started_at=self._started_at,
                    engine=engine,
                    now=self._now(),
                )
        except OperationalError as error:
            log.warning("action=report_failed error=%s", error.orig)

    def _changed(self, engine: dict[str, Any]) -> bool:
        """Return whether the engine is another one, or in another state, than reported."""
        state = "ready" if engine["state"] == "busy" else engine["state"]
        shown = (state, engine["pid"], engine["reason"], tuple(engine["models"]))
        changed = shown != self._reported
        self._reported = shown
        return changed

    def _leave(self) -> None:
        """End the engine, and say that this worker has ended in good order."""
        self._runner.keeper.close()
        self._runner.recorder.close()
        self._bookkeeping.leave()
        try:
            with self._runner.ledger.writing() as session:
                end_worker(session, self.name, now=self._now())
        except OperationalError as error:
            log.warning("action=leave_failed error=%s", error.orig)
