"""The route of previews: the picture that a running diffusion is making.

The rule it protects: a preview is no artifact. It is there while the job runs and gone afterwards,
and whoever asks at another time is told why there is none.
"""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.responses import Response

from daemon.access import Person
from daemon.api.jobs import readable
from daemon.api.ranges import file_answer
from daemon.api.service import Asker, JobNumber, Services
from daemon.errors import ConflictError, NotFoundError
from daemon.ledger import details
from daemon.ledger.jobs import get_job
from daemon.ledger.states import ENDED
from daemon.ledger.tables import Job

router = APIRouter()

# The file that a running diffusion replaces every few steps, in its attempt's folder.
PREVIEW = "preview.png"


@router.get("/jobs/{number}/preview")
async def read_preview(number: JobNumber, service: Services, person: Asker) -> Response:
    """Answer the picture that a running job is making, as it was some steps ago.

    The job replaces the file at any time; what was opened is sent to its end.
    """
    attempt, every = await asyncio.to_thread(service.read, partial(_find_live, number, person))
    try:
        return file_answer(
            service.paths.attempt(number, attempt) / PREVIEW,
            range_header=None,
            media_type="image/png",
            headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        )
    except NotFoundError:
        raise ConflictError(
            f"job {number} has drawn no preview yet",
            remedy=f"it draws one every {_steps(every)}; try again in a while",
        ) from None


def _steps(every: int) -> str:
    return "step" if every == 1 else f"{every} steps"


def _find_live(number: int, person: Person, session: Session) -> tuple[int, int]:
    """Return the number of the running attempt, and how many steps lie between its previews."""
    readable(session, number, person)
    job = get_job(session, number)
    every = job.spec.get("preview_every", 0)
    if job.kind != "diffuse":
        raise ConflictError(
            f"job {number} is of the kind {job.kind}; only a diffusion draws previews",
            remedy=f"studioq fetch {number} brings what it has made",
        )
    attempt = details.live_attempt(session, number)
    if attempt is None:
        raise _not_running(job)
    if not every:
        raise ConflictError(
            f"job {number} draws no previews: its preview_every is 0",
            remedy=f"studioq fetch {number} brings the pictures that are done; for previews of "
            "another job leave out --preview-every 0",
        )
    return attempt, every


def _not_running(job: Job) -> ConflictError:
    ended = job.state in ENDED
    return ConflictError(
        f"job {job.id} {'has ended' if ended else 'does not run yet'}: it is {job.state}; only a "
        "running job has a preview",
        remedy=f"studioq fetch {job.id} brings what it has made"
        if ended
        else f"studioq show {job.id} says what it waits for",
    )
