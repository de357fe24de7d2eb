"""Which models a job of each kind can use.

The rule this module protects: a job on a model of the wrong kind is refused with the reason and
with the models that would do. Asked when a job is submitted, and again by the worker, for models
that were fetched or exchanged meanwhile.
"""

from __future__ import annotations

from pathlib import Path

from daemon.errors import ModelError
from daemon.model_facts import facts_of
from daemon.models import (
    DEMO_MODEL,
    IMAGE_FORMATS,
    LANGUAGE_FORMATS,
    ModelEntry,
    ModelRoots,
    entry_at,
    is_bundled,
)

_LANGUAGE_KINDS = frozenset({"train", "infer", "convert"})
_SHOWN = 8


def check_model(kind: str, name: str, path: Path, models: ModelRoots) -> None:
    """Refuse the model ``name`` at ``path`` where a job of ``kind`` cannot use it.

    Raises:
        ModelError: says what the model is, what is missing of it, or what the kind needs.
    """
    if kind not in _LANGUAGE_KINDS and kind != "diffuse":
        return
    entry = entry_at(name, path)
    if kind in _LANGUAGE_KINDS:
        if entry.format in IMAGE_FORMATS:
            raise _no_language_model(kind, entry, models)
        if entry.format not in LANGUAGE_FORMATS:
            raise _unknown_language_model(entry, models)
    elif entry.format in LANGUAGE_FORMATS:
        raise _no_image_model(entry, models)
    _check_files(entry, models)


def why_unusable(entry: ModelEntry) -> str | None:
    """Return why no job of any kind can use a model, None where nothing speaks against it."""
    problem = facts_of(entry).problem
    return None if problem is None else problem.message


def _check_files(entry: ModelEntry, models: ModelRoots) -> None:
    problem = facts_of(entry).problem
    if problem is None:
        return
    unknown = entry.format not in IMAGE_FORMATS | LANGUAGE_FORMATS
    remedy = _names(models, image=True) if unknown else problem.remedy
    raise ModelError(problem.message, field="model", remedy=remedy)


def check_fetched_later(kind: str, name: str, models: ModelRoots) -> None:
    """Refuse a model that is not here yet, where it is known that a job cannot use it.

    Raises:
        ModelError: says what the model is.
    """
    if kind == "diffuse" and is_bundled(name):
        raise ModelError(
            f"{name} is a language model, and diffuse needs an image model",
            field="model",
            remedy=_names(models, image=True),
        )


def _no_language_model(kind: str, entry: ModelEntry, models: ModelRoots) -> ModelError:
    others = _names(models, image=False)
    return ModelError(
        f"{entry.name} is an image model ({entry.format}), and {kind} needs a language model",
        field="model",
        remedy=f"{others}; for pictures of {entry.name}: "
        f"studioq diffuse PROMPT --model {entry.name}",
    )


def _unknown_language_model(entry: ModelEntry, models: ModelRoots) -> ModelError:
    return ModelError(
        f"{entry.name} is no language model: it has neither a config.json beside its weights, nor "
        "a params.json, nor a GGUF file",
        field="model",
        remedy=_names(models, image=False),
    )


def _no_image_model(entry: ModelEntry, models: ModelRoots) -> ModelError:
    return ModelError(
        f"{entry.name} is a language model ({entry.format}), and diffuse needs an image model",
        field="model",
        remedy=_names(models, image=True),
    )


def _names(models: ModelRoots, *, image: bool) -> str:
    """Return a sentence with the models of a kind that are here and can be used."""
    formats = IMAGE_FORMATS if image else LANGUAGE_FORMATS
    found = [
        entry.name
        for entry in models.list()
        if entry.format in formats and why_unusable(entry) is None
    ]
    if not image and DEMO_MODEL not in found:
        found.append(DEMO_MODEL)
    what = "image" if image else "language"
    if not found:
        return f"there are no {what} models here; studioq models path says where to put one"
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{what} models here: {', '.join(found[:_SHOWN])}{more}"
