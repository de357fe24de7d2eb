"""Whether the models that a benchmark names are of the kinds that its tables need.

The rule this module protects: a model of the wrong kind, or one that no job can use, is refused
before the first job is queued. A name that is not here yet is the daemon's to judge: it may be one
that is fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.errors import SpecRefusedError
from daemon.models import IMAGE_FORMATS, LANGUAGE_FORMATS, is_bundled

if TYPE_CHECKING:
    from daemon.bench.plan import Plan
    from daemon.client.answers import Model

_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class _Need:
    """What a table takes: the option that names it, and its kind as a word and as formats."""

    option: str
    kind: str
    formats: frozenset[str]


_LANGUAGE = _Need(option="--model", kind="a language model", formats=LANGUAGE_FORMATS)
_IMAGE = _Need(option="--image-model", kind="an image model", formats=IMAGE_FORMATS)


def check_models(plan: Plan, models: Sequence[Model]) -> None:
    """Check the models of a plan's tables against those that the daemon lists.

    Raises:
        SpecRefusedError: says what the model is, what the option needs, and which would do.
    """
    known = {model["name"]: model for model in models}
    for table in plan.tables:
        found = known.get(plan.model_of(table))
        if found is not None:
            _check(found, _IMAGE if table == "diffuse" else _LANGUAGE, models)


def _check(model: Model, need: _Need, models: Sequence[Model]) -> None:
    other = _LANGUAGE if need is _IMAGE else _IMAGE
    if _is(model, other):
        raise SpecRefusedError(
            f"{model['name']} is {other.kind}, and {need.option} needs {need.kind}",
            field="model",
            remedy=_which(models, need),
        )
    if model["state"] == "unusable":
        raise SpecRefusedError(
            model["error"] or f"{model['name']} cannot be used",
            field="model",
            remedy=model["remedy"] or _which(models, need),
        )


def _is(model: Model, need: _Need) -> bool:
    """Say whether a model is surely of a kind; one that is not fetched yet has no format."""
    fetched_later = model["format"] is None and need is _LANGUAGE and is_bundled(model["name"])
    return model["format"] in need.formats or fetched_later


def _which(models: Sequence[Model], need: _Need) -> str:
    """Return a sentence with the models that would do."""
    usable = (model for model in models if model["state"] != "unusable")
    found = [model["name"] for model in usable if _is(model, need)]
    if not found:
        return f"there is not {need.kind} here; studioq models path says where to put one"
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"name {need.kind}: {', '.join(found[:_SHOWN])}{more}"
