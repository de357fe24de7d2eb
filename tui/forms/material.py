"""What a form is made of: the schema, the job it starts from, and what it can offer.

The rule this module protects: the form is there as soon as the schema is. Models and jobs come
after it, and a form without them is a form without suggestions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tui.forms.offers import Known

if TYPE_CHECKING:
    from daemon.client import Client

# Jobs that are offered: the latest of each sort.
_LATEST = 50


@dataclass(frozen=True, kw_only=True)
class Material:
    """The daemon's schema, and the job that the form starts from."""

    schema: Mapping[str, Any]
    job: Mapping[str, Any] | None = None

    @property
    def origin(self) -> int | None:
        """The number of that job."""
        return None if self.job is None else int(self.job["id"])


def read_material(client: Client, start_from: int | None) -> Material:
    """Ask for the schema, and for the job that the form starts from.

    Raises:
        StudioqError: the daemon is away, or there is no such job.
    """
    job = None if start_from is None else client.job(start_from)
    return Material(schema=client.schema(), job=job)


def read_known(client: Client) -> Known:
    """Ask for the models, the latest trainings that succeeded, and the latest jobs."""
    trained = client.jobs(everything=True, kind="train", state="succeeded", limit=_LATEST)["jobs"]
    return Known(
        models=client.models()["models"],
        trained=[line for line in trained if line["readable"]],
        jobs=client.jobs(limit=_LATEST)["jobs"],
    )


def troubles(material: Material) -> str | None:
    """Return why a form cannot start from the job as it was asked to."""
    job = material.job
    if job is None:
        return None
    if job["kind"] not in material.schema["kinds"]:
        return f"job {job['id']} is of kind {job['kind']}, which cannot be submitted here"
    if not job["spec"]:
        return f"what job {job['id']} says is its owner's; the form starts empty"
    return None
