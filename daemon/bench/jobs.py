"""Queueing a benchmark's jobs and waiting for them.

The rule this module protects: a benchmark leaves no job of its own behind. Whatever ends it early
cancels those of its jobs that have not ended, and no other, and says of each whether it is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.bench.plan import Planned
from daemon.cli.submission import hub_token
from daemon.cli.watch import View, watch
from daemon.client import ENDED
from daemon.errors import ConflictError, JobError, StudioqError

if TYPE_CHECKING:
    from daemon.client import Client

# Seconds for which an ending benchmark waits until its running job has heard of its cancel.
_PATIENCE = 5.0


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """What became of the jobs that had to be cancelled, by number.

    ``gone`` have ended, ``going`` have been told to, of ``unsure`` nothing is known: ``why`` is
    what the daemon, or its absence, said.
    """

    gone: tuple[int, ...] = ()
    going: tuple[int, ...] = ()
    unsure: tuple[int, ...] = ()
    why: str = ""

    def lines(self) -> Iterator[str]:
        """Yield what is to be said of them."""
        if self.gone:
            yield f"cancelled: {_jobs(self.gone)}"
        if self.going:
            many = len(self.going) > 1
            ends = "are being cancelled and end" if many else "is being cancelled and ends"
            yield f"{_jobs(self.going)} {ends} at the next safe point"
        if self.unsure:
            yield (
                f"{_jobs(self.unsure)} may be left in the queue: {self.why}; remedy: studioq "
                f"cancel {_listed(self.unsure)}"
            )


class Jobs:
    """The jobs of one benchmark. ``view``: where their progress is shown."""

    def __init__(
        self, client: Client, view: View, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._view = view
        self._clock = clock
        self._open: list[int] = []

    def submit(self, planned: Planned) -> int:
        """Queue a job and return its number.

        Raises:
            SpecRefusedError: as the daemon says.
        """
        token = hub_token(planned.spec["model"])
        answer = self._client.submit(planned.kind, planned.spec, hub_token=token, name=planned.name)
        self._open.append(answer["id"])
        return answer["id"]

    def run(self, group: Sequence[Planned]) -> list[Any]:
        """Queue a group of jobs; return them as they ended, all with success.

        Raises:
            JobError: one did not succeed; those of the group that had not ended were cancelled.
        """
        return self.wait([self.submit(planned) for planned in group])

    def wait(self, numbers: Sequence[int]) -> list[Any]:
        """Wait for jobs that were queued before, as ``run`` does."""
        ended = []
        for number in numbers:
            (job,) = watch(self._client, [number], self._view)
            self._open.remove(number)
            if job["state"] != "succeeded":
                self._tell_all(numbers)
                raise failure(job)
            ended.append(job)
        return ended

    def others_running(self) -> list[int]:
        """Return the numbers of jobs that run now and are none of this benchmark's."""
        jobs = self._client.jobs(limit=1000)["jobs"]
        return [
            job["id"] for job in jobs if job["state"] == "running" and job["id"] not in self._open
        ]

    def close(self) -> Cancelled:
        """Cancel what has not ended, and wait for a moment until that is so."""
        told, unsure, why = [], [], ""
        for number in tuple(self._open):
            try:
                if self._tell(number):
                    told.append(number)
            except StudioqError as error:
                unsure.append(number)
                why = error.message
        deadline = self._clock() + _PATIENCE
        gone = tuple(number for number in told if self._has_ended(number, deadline))
        going = tuple(number for number in told if number not in gone)
        return Cancelled(gone=gone, going=going, unsure=tuple(unsure), why=why)

    def _tell_all(self, numbers: Sequence[int]) -> None:
        """Cancel those of the jobs that are open; what goes wrong is for ``close`` to try again."""
        for number in set(numbers).intersection(self._open):
            with suppress(StudioqError):
                self._tell(number)

    def _tell(self, number: int) -> bool:
        """Cancel a job unless it has ended; return whether it had to be."""
        try:
            if needed := self._client.job(number)["state"] not in ENDED:
                self._client.cancel(number)
        except ConflictError:
            needed = False  # it has ended between the two calls
        self._open.remove(number)
        return needed

    def _has_ended(self, number: int, deadline: float) -> bool:
        """Wait for a job's end until the ``deadline``; who interrupts this waits no longer."""
        try:
            self._client.wait(number, max(0.0, deadline - self._clock()))
        except (StudioqError, KeyboardInterrupt):
            return False
        return True


def _jobs(numbers: Sequence[int]) -> str:
    return f"job{'s' if len(numbers) > 1 else ''} {_listed(numbers)}"


def _listed(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def failure(job: Any) -> JobError:
    """Return why a job did not succeed; the error has the code of the job's own."""
    error = job["error"] or {}
    reason = error.get("message") or job["reason"] or "no reason was recorded"
    found = JobError(
        f"job {job['id']} ({job['name']}) {job['state']}: {reason}",
        remedy=error.get("remedy") or f"studioq logs {job['id']}",
    )
    found.code = str(error.get("code") or found.code)
    return found
