"""Whatever users, workers and crashes do, in whatever order, the ledger stays consistent."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from daemon import scheduler
from daemon.errors import ConflictError, StaleAttemptError
from daemon.ledger import attempts, jobs
from daemon.ledger.attempts import Claim, Ending, File
from daemon.ledger.jobs import NewJob
from daemon.ledger.migrate import open_ledger
from daemon.ledger.states import ENDED, AttemptState, JobState, Wish
from daemon.ledger.tables import Artifact, Attempt, Job
from daemon.ledger.users import ensure_user

ENDINGS = [state for state in AttemptState if state != AttemptState.RUNNING]
Action = Callable[..., object]
USER_ACTIONS: list[Action] = [jobs.cancel, jobs.finish, jobs.hold, jobs.release, jobs.retry]


class LedgerMachine(RuleBasedStateMachine):
    """Users submit and change their minds, a worker claims and reports, attempts end anyhow."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.ledger = open_ledger(self.folder / "ledger.db")
        self.now = 1_000.0
        self.claims: list[Claim] = []
        self.jobs = 0
        self.revision = 0

    def teardown(self) -> None:
        self.ledger.close()
        shutil.rmtree(self.folder)

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    @rule(uid=st.integers(1, 3), hold=st.booleans(), needs=st.integers(0, 3), late=st.booleans())
    def submit(self, uid: int, hold: bool, needs: int, late: bool) -> None:
        now = self.tick()
        with self.ledger.writing() as session:
            user = ensure_user(session, uid=uid, name=f"u{uid}", now=now)
            new = NewJob(
                user_id=user.id,
                kind="noop",
                spec={},
                hold=hold,
                after=[needs] if 0 < needs <= self.jobs else [],
                begin_at=now + 5 if late else None,
                retries=uid - 1,
            )
            self.jobs = jobs.submit(session, new, actor="u", now=now).id

    @precondition(lambda self: self.jobs > 0)
    @rule(action=st.sampled_from(USER_ACTIONS), pick=st.integers(0, 100))
    def change_mind(self, action: Action, pick: int) -> None:
        with suppress(ConflictError), self.ledger.writing() as session:
            action(session, pick % self.jobs + 1, actor="u", now=self.tick())

    @rule()
    def settle(self) -> None:
        with self.ledger.writing() as session:
            jobs.settle_waiting(session, now=self.tick())

    @rule()
    def claim_next(self) -> None:
        with self.ledger.writing() as session:
            chosen = scheduler.choose(session, warm=(), now=self.tick())
            if chosen is None:
                return
            claim = attempts.claim(session, chosen, worker="w", device=None, now=self.now)
        assert claim is not None
        self.claims.append(claim)

    @precondition(lambda self: bool(self.claims))
    @rule(pick=st.integers(0, 100), ending=st.sampled_from(ENDINGS))
    def end_some_attempt(self, pick: int, ending: AttemptState) -> None:
        """End any attempt ever claimed; one that has ended must be refused."""
        claim = self.claims[pick % len(self.claims)]
        file = File(name="out", kind="text", bytes=1, sha256="0" * 64)
        live = claim.fence in {item.fence for item in self.live()}
        try:
            with self.ledger.writing() as session:
                given = Ending(state=ending, gpu_seconds=2.0, files=[file])
                attempts.end(session, claim.fence, given, now=self.tick())
        except StaleAttemptError:
            assert not live
        else:
            assert live

    @precondition(lambda self: bool(self.claims))
    @rule(pick=st.integers(0, 100))
    def checkpoint(self, pick: int) -> None:
        claim = self.claims[pick % len(self.claims)]
        with suppress(StaleAttemptError), self.ledger.writing() as session:
            now = self.tick()
            attempts.add_checkpoint(
                session, claim.fence, step=int(now), folder="c", files=[], now=now
            )

    def live(self) -> list[Claim]:
        with self.ledger.reading() as session:
            return attempts.live_attempts(session)

    @invariant()
    def consistent(self) -> None:
        with self.ledger.reading() as session:
            self.check_states(session)
            self.check_sums(session)
            newest = session.scalar(select(func.max(Job.revision))) or 0
        assert newest >= self.revision
        self.revision = newest

    def check_states(self, session: Session) -> None:
        live = {claim.job_id for claim in attempts.live_attempts(session)}
        assert len(live) == len(attempts.live_attempts(session))
        for job in session.scalars(select(Job)):
            assert (job.state == JobState.RUNNING) == (job.id in live)
            assert (job.ended_at is not None) == (job.state in ENDED)
            assert job.state not in ENDED or job.wish is None
            assert job.state == JobState.RUNNING or job.wish in {None, Wish.FINISH}
        queued = {number for number, _ in jobs.queued_dispatches(session)}
        chosen = scheduler.choose(session, warm=(), now=self.now)
        assert (chosen in queued) if queued else (chosen is None)

    def check_sums(self, session: Session) -> None:
        spent = session.scalar(select(func.sum(Attempt.gpu_seconds))) or 0.0
        assert spent == (session.scalar(select(func.sum(Job.gpu_seconds))) or 0.0)
        published = session.scalars(
            select(Attempt.state).join(Artifact, Artifact.attempt_id == Attempt.id)
        )
        assert set(published) <= {AttemptState.SUCCEEDED}


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
