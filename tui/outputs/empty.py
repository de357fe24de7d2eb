"""What stands in the place of outputs where there are none, and why.

The rule this module protects: an empty tab says why it is empty and what would fill it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.outputs.safe import one_line

if TYPE_CHECKING:
    from daemon.client.answers import JobLine

_COMING = {
    "train": "the first file of a training is its first checkpoint",
    "infer": "the text appears here as it is made",
    "diffuse": "a preview appears a few steps after the start, each picture when it is done",
    "convert": "the model's files appear when all of it is converted",
    "lease": "a lease runs somebody's own command and makes no files here",
}


def not_readable(job: JobLine) -> str:
    """Say whose job it is."""
    return (
        f"The outputs of job {job['id']} belong to {one_line(job['user'])} and are not shared.\n"
        "Who submits with --share lets everyone read them."
    )


def why_empty(job: JobLine) -> str:
    """Say why a job has made nothing (yet)."""
    reason = one_line(job["reason"] or "")
    match job["state"]:
        case "succeeded":
            return f"Job {job['id']} succeeded and made no files."
        case "failed" | "cancelled":
            error = job["error"]
            why = one_line(error.get("message") or "") if error else reason
            return f"Job {job['id']} made no files: {job['state']}" + (f", {why}." if why else ".")
        case "running":
            return f"Nothing yet{_done(job)}: {_COMING.get(job['kind'], 'the job runs')}."
    place = f", number {job['position']} in the queue" if job["position"] else ""
    return f"Nothing yet: the job is {job['state']}{place}" + (f" ({reason})." if reason else ".")


def _done(job: JobLine) -> str:
    progress = job["progress"]
    if not progress or not progress["total"]:
        return ""
    return f", {progress['done'] or 0} of {progress['total']}"
