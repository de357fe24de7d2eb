"""The request around a spec: the job's kind, and what the queue needs to know."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from daemon.refusals import refusal
from daemon.specs.base import Strict, called


class JobRequest(Strict):
    """One submission: the kind, its spec, and what the queue needs to know."""

    kind: Annotated[str, called("kind")]
    spec: Annotated[dict[str, Any], called("spec")]
    name: Annotated[str | None, Field(max_length=200)] = None
    priority: Literal["low", "normal", "high"] = "normal"
    after: Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=1000)] = []  # noqa: RUF012 - pydantic copies it
    hold: bool = False
    begin_at: Annotated[float | None, called("--begin")] = None
    time_limit_seconds: Annotated[
        float | None, Field(gt=0, le=366 * 86400), called("--time-limit")
    ] = None
    retries: Annotated[int, Field(ge=0, le=100)] = 0
    share: bool = False

    @field_validator("name")
    @classmethod
    def _one_line(cls, name: str | None) -> str | None:
        if name is not None and not name.isprintable():
            raise ValueError(f"{name!r} has control characters; a name is one printable line")
        return name


def parse_request(data: object) -> JobRequest:
    """Check the envelope of a submission.

    Raises:
        SpecRefusedError: names the first wrong field, its value and what is allowed.
    """
    try:
        return JobRequest.model_validate(data)
    except ValidationError as error:
        raise refusal(error, JobRequest) from None
