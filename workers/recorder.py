"""Writes what attempts report: rows into the ledger, lines into the job's files.

The rule this module protects: an event is written once, under its attempt's fencing number, and an
ending is never lost. A busy ledger is tried again; a full disk fails the job and not the worker; a
refusal by the fence drops the attempt.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from daemon.errors import DiskFullError, JobError, StaleAttemptError, StudioqError
from daemon.ledger import attempts as ledger_attempts
from daemon.ledger.attempts import Ending, File
from daemon.ledger.states import AttemptState
from daemon.ledger.store import Ledger
from daemon.locate import Paths
from workers import events
from workers.attempts import Cause, LiveAttempt
from workers.buffers import Buffer, PendingCheckpoint
from workers.collector import Collector
from workers.endings import failed
from workers.jobfiles import JobFiles
from workers.protocol import Happened

log = logging.getLogger(__name__)

# Seconds before a write that the ledger refused is tried again.
_RETRY = 0.5


Follow = Callable[[Session], None]


class Recorder:
    """Buffers the events of all live attempts and writes them together.

    ``clock`` measures intervals, ``now`` dates rows; both in seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        paths: Paths,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._paths = paths
        self._clock = clock
        self._now = now
        self._buffers: dict[int, Buffer] = {}
        self._collector = Collector()
        self._retry_at = 0.0

    def begin(self, attempt: LiveAttempt, step: int | None) -> None:
        """Prepare for an attempt's events; ``step`` is the checkpoint it goes on from.

        Raises:
            DiskFullError: its log could not be begun.
        """
        self._buffers[attempt.fence] = Buffer()
        self._files(attempt).begin(attempt.claim.number, step)

    def close(self) -> None:
        """End the thread that examines files."""
        self._collector.close()

    def take(self, attempt: LiveAttempt, happened: Happened) -> None:
        """Keep an event until it is written."""
        buffer = self._buffers[attempt.fence]
        match happened.event:
            case events.Progress() as progress:
                buffer.progress = progress
            case events.Metric(step=step, values=values):
                buffer.add_metrics(step, values, happened.at)
            case events.Log(text=text):
                buffer.log.append(text)
            case events.Text(text=text):
                buffer.text.append(text)
            case events.Facts(facts=facts):
                buffer.facts.update(facts)
            case events.Artifact(path=path, kind=kind, step=step):
                buffer.artifacts[path] = self._collect(attempt, path, kind, step)
            case events.Checkpoint() as checkpoint:
                buffer.checkpoints.append(self._pending(attempt, checkpoint))
            case events.SafePoint() | events.Stopped():
                pass

    def _collect(
        self, attempt: LiveAttempt, path: str, kind: str, step: int | None
    ) -> Future[File]:
        return self._collector.collect(attempt.folder, path, kind, step)

    def _pending(self, attempt: LiveAttempt, checkpoint: events.Checkpoint) -> PendingCheckpoint:
        files = tuple(
            self._collect(attempt, path, checkpoint.kind, checkpoint.step)
            for path in checkpoint.files
        )
        return PendingCheckpoint(step=checkpoint.step, folder=checkpoint.folder, files=files)

    def due_in(self) -> float | None:
        """Return the seconds until ``flush`` has something to write, None if nothing waits."""
        clock = self._clock()
        due = [buffer.due_in(clock) for buffer in self._buffers.values()]
        soonest = min((wait for wait in due if wait is not None), default=None)
        return None if soonest is None else max(soonest, self._retry_at - clock)

    def flush(self, attempts: Iterable[LiveAttempt]) -> None:
        """Write what is due. Attempts that the fence refuses or whose disk is full are marked."""
        clock = self._clock()
        if clock < self._retry_at:
            return
        due = [attempt for attempt in attempts if self._is_due(attempt, clock)]
        for attempt in due:
            self._append(attempt)
        rows = [attempt for attempt in due if self._buffers[attempt.fence].has_rows()]
        if rows:
            self._commit(rows)

    def _is_due(self, attempt: LiveAttempt, clock: float) -> bool:
        buffer = self._buffers.get(attempt.fence)
        return buffer is not None and buffer.due_in(clock) == 0.0

    def _append(self, attempt: LiveAttempt) -> None:
        """Write log lines and text to the job's files."""
        buffer = self._buffers[attempt.fence]
        if attempt.fenced:
            buffer.clear()
            return
        try:
            files = self._files(attempt)
            if buffer.log:
                files.append_log("\n".join(buffer.log))
            if buffer.text:
                files.append_text("".join(buffer.text))
        except OSError as error:
            _blame(attempt, JobError(f"the job's log cannot be written: {error}"))
        except DiskFullError as error:
            _blame(attempt, error)
        buffer.log.clear()
        buffer.text.clear()

    def _commit(self, attempts: Sequence[LiveAttempt]) -> None:
        """Write rows of several attempts in one transaction, each in a savepoint of its own."""
        try:
            written = self._write_all(attempts)
        except OperationalError as error:
            self._put_off(error, attempts)
            return
        for attempt, count in zip(attempts, written, strict=True):
            self._buffers[attempt.fence].forget(count, self._clock())

    def _write_all(self, attempts: Sequence[LiveAttempt]) -> list[int]:
        """Return for each attempt how many checkpoints were written; one needs no savepoint."""
        if len(attempts) == 1:
            return [self._guarded(self._ledger.writing(), attempts[0])]
        with self._ledger.writing() as session:
            return [self._guarded(_savepoint(session), attempt) for attempt in attempts]

    def _guarded(self, scope: AbstractContextManager[Session], attempt: LiveAttempt) -> int:
        """Write an attempt's rows in ``scope``, which its faults end and nothing else."""
        buffer = self._buffers[attempt.fence]
        try:
            with scope as session:
                return self._write(session, attempt, buffer)
        except StaleAttemptError:
            attempt.give_reason(Cause.FENCED, self._clock())
        except OperationalError:
            raise
        except SQLAlchemyError as error:
            log.exception("action=rows_refused job=%d", attempt.claim.job_id)
            _blame(attempt, JobError(f"what the job reported cannot be recorded: {error}"))
        except StudioqError as error:
            _blame(attempt, error)
        buffer.clear()
        return 0

    def _write(self, session: Session, attempt: LiveAttempt, buffer: Buffer) -> int:
        fence = attempt.fence
        if buffer.progress is not None:
            ledger_attempts.report_progress(
                session,
                fence,
                done=buffer.progress.done,
                total=buffer.progress.total,
                eta_seconds=buffer.progress.eta_seconds,
            )
        if buffer.metrics:
            ledger_attempts.report_metrics(session, fence, buffer.metrics)
        if buffer.facts:
            ledger_attempts.report_facts(session, fence, buffer.facts)
        ready = buffer.ready_checkpoints()
        for checkpoint in ready:
            ledger_attempts.add_checkpoint(
                session,
                fence,
                step=checkpoint.step,
                folder=checkpoint.folder,
                files=[file.result() for file in checkpoint.files],
                now=self._now(),
            )
        return len(ready)

    def end(self, attempt: LiveAttempt, follow: Follow | None = None) -> bool:
        """Write an attempt's ending with its last rows; False if it has to be tried again.

        ``follow`` is run in the same transaction, so that what comes next costs no further sync of
        the disk; it may not raise what it wants the ending to survive.
        """
        buffer = self._buffers.setdefault(attempt.fence, Buffer())
        if attempt.fenced:
            return self._forget(attempt)
        if self._clock() < self._retry_at or not buffer.settled():
            return False
        self._append(attempt)
        try:
            with self._ledger.writing() as session:
                if buffer.has_more_than_progress():
                    self._guarded(_savepoint(session), attempt)
                if not attempt.fenced:
                    self._write_ending(session, attempt, buffer)
                    if follow is not None:
                        follow(session)
        except StaleAttemptError:
            pass
        except OperationalError as error:
            self._put_off(error, [attempt])
            return False
        except SQLAlchemyError as error:
            return self._refused(attempt, buffer, error)
        return self._forget(attempt)

    def _final(self, attempt: LiveAttempt, buffer: Buffer) -> Ending:
        """Return the ending with the files it publishes, or as failed if they cannot be."""
        assert attempt.ending is not None  # noqa: S101 - the caller has looked
        ending = attempt.ending
        if attempt.error is not None and ending.state is AttemptState.SUCCEEDED:
            return _as_failed(ending, attempt.error)
        try:
            files = [file.result() for file in buffer.artifacts.values()]
        except StudioqError as error:
            fails = ending.state is AttemptState.SUCCEEDED
            return _as_failed(ending, error) if fails else ending
        known = buffer.published | {
            file.result().name for pending in buffer.checkpoints for file in pending.files
        }
        return dataclasses.replace(
            ending, files=tuple(file for file in files if file.name not in known)
        )

    def _write_ending(self, session: Session, attempt: LiveAttempt, buffer: Buffer) -> None:
        ending = self._final(attempt, buffer)
        if buffer.progress is not None:
            progress = buffer.progress.done, buffer.progress.total
            ending = dataclasses.replace(ending, progress=progress)
        ledger_attempts.end(session, attempt.fence, ending, now=self._now())

    def _refused(self, attempt: LiveAttempt, buffer: Buffer, error: SQLAlchemyError) -> bool:
        """End an attempt as failed, without files, when the ledger refuses what it reports."""
        log.exception("action=ending_refused job=%d", attempt.claim.job_id)
        assert attempt.ending is not None  # noqa: S101 - the caller has looked
        problem = JobError(f"what the job left cannot be recorded: {error}")
        attempt.ending = _as_failed(attempt.ending, problem)
        buffer.clear()
        self._retry_at = self._clock() + _RETRY
        return False

    def _put_off(self, error: OperationalError, attempts: Iterable[LiveAttempt]) -> None:
        """Try again later; a ledger that cannot grow also fails the jobs that would fill it."""
        log.warning("action=ledger_busy error=%s", error.orig)
        self._retry_at = self._clock() + _RETRY
        if "disk is full" in str(error.orig):
            full = DiskFullError(
                f"the disk is full: the ledger in {self._paths.home} could not be written",
                remedy="free space there, then studioq retry N",
            )
            for attempt in attempts:
                _blame(attempt, full)

    def _forget(self, attempt: LiveAttempt) -> bool:
        self._buffers.pop(attempt.fence, None)
        return True

    def _files(self, attempt: LiveAttempt) -> JobFiles:
        return JobFiles(self._paths, attempt.claim.job_id)


@contextmanager
def _savepoint(session: Session) -> Iterator[Session]:
    with session.begin_nested():
        yield session


def _blame(attempt: LiveAttempt, error: StudioqError) -> None:
    """Note the first fault on the worker's side; the runner then ends the attempt."""
    if attempt.error is None:
        attempt.error = error


def _as_failed(ending: Ending, error: StudioqError) -> Ending:
    return dataclasses.replace(
        failed(error, ending.gpu_seconds), peak_memory_bytes=ending.peak_memory_bytes
    )
