"""Queueing a benchmark's jobs and waiting for them.

The rule this module protects: a benchmark leaves no job of its own behind. Whatever ends it early
cancels those of its jobs that have not ended, and no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from daemon.bench.plan import Planned
from daemon.cli.submission import hub_token
from daemon.cli.watch import View, watch
from daemon.client import ENDED
from daemon.errors import JobError, StudioqError

if TYPE_CHECKING:
    from daemon.client import Client


class Jobs:
    """The jobs of one benchmark. ``view``: where their progress is shown."""

    def __init__(self, client: Client, view: View) -> None:
        self._client = client
        self._view = view
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
                self._cancel([other for other in numbers if other in self._open])
                raise failure(job)
            ended.append(job)
        return ended

    def others_running(self) -> list[int]:
        """Return the numbers of jobs that run now and are none of this benchmark's."""
        jobs = self._client.jobs(limit=1000)["jobs"]
        return [
            job["id"] for job in jobs if job["state"] == "running" and job["id"] not in self._open
        ]

    def close(self) -> list[int]:
        """Cancel what has not ended; return the numbers of those jobs."""
        return self._cancel(list(self._open))

    def _cancel(self, numbers: Sequence[int]) -> list[int]:
        cancelled = []
        for number in numbers:
            self._open.remove(number)
            with suppress(StudioqError):
                if self._client.job(number)["state"] not in ENDED:
                    self._client.cancel(number)
                    cancelled.append(number)
        return cancelled


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
