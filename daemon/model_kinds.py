"""Which models a job of each kind can use.

The rule this module protects: a job on a model of the wrong kind is refused with the reason and
with the models that would do. Asked when a job is submitted, and again by the worker, for models
that were fetched or exchanged meanwhile.
"""

from __future__ import annotations

from pathlib import Path

from daemon.errors import ModelError
from daemon.image_files import ImageFolder, check_checkpoint
from daemon.image_models import why_no_image_model
from daemon.models import (
    DEMO_MODEL,
    IMAGE_FORMATS,
    LANGUAGE_FORMATS,
    ModelEntry,
    ModelRoots,
    is_bundled,
    model_format,
)

_LANGUAGE_KINDS = frozenset({"train", "infer"})
_SHOWN = 8


def check_model(kind: str, name: str, path: Path, models: ModelRoots) -> None:
    """Refuse the model ``name`` at ``path`` where a job of ``kind`` cannot use it.

    Raises:
        ModelError: says what the model is, what is missing of it, or what the kind needs.
    """
    if kind not in _LANGUAGE_KINDS and kind != "diffuse":
        return
    found = model_format(path)
    if kind in _LANGUAGE_KINDS:
        if found in IMAGE_FORMATS:
            raise _no_language_model(kind, name, found, models)
    elif found not in IMAGE_FORMATS:
        raise _no_image_model(name, path, found, models)
    else:
        _check_image_files(name, path, found)


def why_unusable(entry: ModelEntry) -> str | None:
    """Return why no job of any kind can use a model, None where nothing speaks against it.

    Language models are looked at by the jobs that load them.
    """
    if entry.format in LANGUAGE_FORMATS:
        return None
    try:
        if entry.format in IMAGE_FORMATS:
            _check_image_files(entry.name, entry.path, entry.format)
            return None
        return f"{entry.name} is no image model: {why_no_image_model(entry.path)}"
    except ModelError as error:
        return error.message
    except OSError as error:
        return f"{entry.name} cannot be read: {error.strerror}"


def _check_image_files(name: str, path: Path, found: str) -> None:
    if found == "diffusers":
        ImageFolder(name=name, path=path).check()
    else:
        check_checkpoint(name, path)


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


def _no_language_model(kind: str, name: str, found: str, models: ModelRoots) -> ModelError:
    others = _names(models, image=False)
    return ModelError(
        f"{name} is an image model ({found}), and {kind} needs a language model",
        field="model",
        remedy=f"{others}; for pictures of {name}: studioq diffuse PROMPT --model {name}",
    )


def _no_image_model(name: str, path: Path, found: str, models: ModelRoots) -> ModelError:
    if found == "unknown":
        said = f"{name} is no image model: {why_no_image_model(path)}"
    else:
        said = f"{name} is a language model ({found}), and diffuse needs an image model"
    return ModelError(said, field="model", remedy=_names(models, image=True))


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
