"""What a job of each kind may say: one pydantic model per kind, and the request around it.

The rule this package protects: a job can be repeated from its ledger row alone. So every field has
its default here, unknown fields are errors, the seed is drawn when the spec is accepted, and a file
is named by its hash and never by a path.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError

from daemon.errors import SpecRefusedError
from daemon.refusals import refusal
from daemon.specs.base import (
    MAX_COUNT,
    MAX_SEED,
    InputFile,
    JobReference,
    ModelName,
    Spec,
    Strict,
    parse_job_reference,
)
from daemon.specs.convert import ConvertSpec
from daemon.specs.diffuse import (
    LONGEST_SIDE,
    MAX_PIXELS,
    MAX_STEPS,
    SIDE_STEP,
    DiffuseSpec,
    LoraFile,
)
from daemon.specs.language import AdapterFiles, InferSpec, TrainingData, TrainSpec
from daemon.specs.request import JobRequest, parse_request

__all__ = [
    "LONGEST_SIDE",
    "MAX_COUNT",
    "MAX_PIXELS",
    "MAX_SEED",
    "MAX_STEPS",
    "SIDE_STEP",
    "SPECS",
    "TEST_KINDS",
    "AdapterFiles",
    "ConvertSpec",
    "DiffuseSpec",
    "InferSpec",
    "InputFile",
    "JobReference",
    "JobRequest",
    "Kind",
    "LoraFile",
    "ModelName",
    "NoopSpec",
    "Spec",
    "Strict",
    "TrainSpec",
    "TrainingData",
    "load_spec",
    "offered_kinds",
    "parse_job_reference",
    "parse_request",
    "parse_spec",
    "schema",
]


class NoopSpec(Spec):
    """Does nothing, for tests and benchmarks; refused unless STUDIOQ_TEST_KINDS=1."""

    model: ModelName | None = None
    steps: Annotated[int, Field(ge=0, le=MAX_COUNT, description="Safe points to pass.")] = 0
    step_seconds: Annotated[float, Field(ge=0, le=3600, description="Time each takes.")] = 0.0
    checkpoint_every: Annotated[int, Field(ge=0, le=MAX_COUNT, description="0: never.")] = 0
    fail_at: Annotated[int | None, Field(ge=0, description="Fail at this step.")] = None
    deaf: Annotated[bool, Field(description="Sleep all the time in one step, hearing nothing.")] = (
        False
    )


SPECS: dict[str, type[Spec]] = {
    "train": TrainSpec,
    "infer": InferSpec,
    "diffuse": DiffuseSpec,
    "convert": ConvertSpec,
    "noop": NoopSpec,
}
TEST_KINDS = frozenset({"noop"})
Kind = Literal["train", "infer", "diffuse", "convert", "noop"]


def offered_kinds() -> tuple[str, ...]:
    """Return the kinds that a user may submit here."""
    hidden = frozenset() if os.environ.get("STUDIOQ_TEST_KINDS") == "1" else TEST_KINDS
    return tuple(kind for kind in get_args(Kind) if kind not in hidden)


def parse_spec(kind: str, spec: object) -> Spec:
    """Check the spec of a job of ``kind`` and fill its defaults, the seed included.

    Raises:
        SpecRefusedError: names the first wrong field, its value and what is allowed.
    """
    if kind not in offered_kinds():
        raise SpecRefusedError(
            f"there is no job kind {kind!r}",
            field="kind",
            remedy=f"one of: {', '.join(offered_kinds())}",
        )
    try:
        return SPECS[kind].model_validate(spec)
    except ValidationError as error:
        raise refusal(error, SPECS[kind]) from None


def load_spec(kind: str, spec: object) -> Spec:
    """Rebuild a recorded spec, which was checked when it was accepted.

    Raises:
        SpecRefusedError: it was recorded by another version, and no longer fits.
    """
    try:
        return SPECS[kind].model_validate(spec)
    except ValidationError as error:
        raise refusal(error, SPECS[kind]) from None


def schema() -> dict[str, Any]:
    """Return the JSON Schema of every offered kind, and of the request around it."""
    return {
        "request": JobRequest.model_json_schema(),
        "kinds": {kind: SPECS[kind].model_json_schema() for kind in offered_kinds()},
    }
