"""What a model is, how large it is, and why no job can use it where none can.

The rule this module protects: a model's headers are read once for as long as its files stay as
they are, by their names, sizes and times, so that a list of a hundred models costs a look at the
folders; and one model's damage is that model's alone, whatever it does to its reader. Imports no
MLX.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

from daemon.errors import ModelError
from daemon.image_facts import ImageFacts, image_facts
from daemon.image_files import ImageFolder, check_checkpoint
from daemon.image_models import NETWORKS, checkpoint_file, why_no_image_model
from daemon.language_files import LanguageFacts, LanguageFiles, lacks_config
from daemon.models import CONFIG, IMAGE_FORMATS, LANGUAGE_FORMATS, ModelEntry
from daemon.regular_files import unreadable
from daemon.safetensors_header import WeightsHeader, read_safetensors_header
from daemon.weights_count import WeightsCount, count_weights

log = logging.getLogger(__name__)

# How many models' facts are remembered, a few kilobytes each.
_REMEMBERED = 1024

_AGAIN = "copy or download the whole model again"
_KNOWN = (
    "models are folders of Hugging Face, MLX or diffusers, releases with params.json, weights.npz "
    "with it, GGUF files, and checkpoints of Stable Diffusion in safetensors"
)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of a model; ``problem`` says why no job can use it.

    ``architecture``: a ``model_type``, GGUF's ``general.architecture``, or an image model's family.
    """

    architecture: str | None = None
    count: WeightsCount | None = None
    image: ImageFacts = field(default_factory=ImageFacts)
    problem: ModelError | None = None


def facts_of(entry: ModelEntry) -> ModelFacts:
    """Return what is known of a model, from memory where its files have not changed.

    What was not foreseen is its ``problem``, too; that is not remembered, since it may pass.
    """
    try:
        return _read_facts(entry)
    except Exception as error:
        log.exception("action=model_unreadable model=%r", entry.name)
        return ModelFacts(problem=_unforeseen(entry, error))


@lru_cache(maxsize=_REMEMBERED)
def _read_facts(entry: ModelEntry) -> ModelFacts:
    if entry.format in LANGUAGE_FORMATS:
        return _of_language_model(entry)
    if entry.format in IMAGE_FORMATS:
        return _of_image_model(entry)
    return ModelFacts(problem=_what_is_unknown(entry))


def _of_language_model(entry: ModelEntry) -> ModelFacts:
    files = LanguageFiles(name=entry.name, path=entry.path, format=entry.format)
    known, problem = [LanguageFacts()], None
    try:
        for facts in files.facts():
            known.append(facts)
    except ModelError as error:
        problem = _kept(error)
    except OSError as error:
        problem = unreadable(entry.name, error)
    last = known[-1]
    return ModelFacts(architecture=last.architecture, count=last.count, problem=problem)


def _of_image_model(entry: ModelEntry) -> ModelFacts:
    image = image_facts(entry.path)
    problem = _image_problem(entry)
    count: WeightsCount | None = None
    with suppress(ModelError, OSError):
        count = count_weights(list(_image_headers(entry)))
    return ModelFacts(architecture=image.family, count=count, image=image, problem=problem)


def _image_problem(entry: ModelEntry) -> ModelError | None:
    try:
        if entry.format == "diffusers":
            ImageFolder(name=entry.name, path=entry.path).check()
        else:
            check_checkpoint(entry.name, entry.path)
    except ModelError as error:
        return _kept(error)
    except OSError as error:
        return unreadable(entry.name, error)
    return None


def _image_headers(entry: ModelEntry) -> Iterator[WeightsHeader]:
    file = None if entry.format == "diffusers" else checkpoint_file(entry.path)
    if file is not None:
        yield read_safetensors_header(file)
        return
    folder = ImageFolder(name=entry.name, path=entry.path)
    for part in NETWORKS:
        if (entry.path / part).is_dir():
            numbered = sorted((entry.path / part).glob("[0-9]*.safetensors"))
            for weights in numbered or folder.weights(part):
                yield read_safetensors_header(weights)


def _what_is_unknown(entry: ModelEntry) -> ModelError:
    if entry.path.is_dir() and lacks_config(entry.path):
        return ModelError(f"{entry.name} is incomplete: it has no {CONFIG}", remedy=_AGAIN)
    try:
        reason = why_no_image_model(entry.path)
    except ModelError as error:
        return _kept(error)
    except OSError as error:
        return unreadable(entry.name, error)
    return ModelError(f"{entry.name} is no image model: {reason}", remedy=_KNOWN)


def _unforeseen(entry: ModelEntry, error: Exception) -> ModelError:
    return ModelError(
        f"{entry.name} cannot be read, for a reason that was not foreseen: {type(error).__name__}",
        remedy=f"{_AGAIN}; the daemon's log has the details",
    )


def _kept(error: ModelError) -> ModelError:
    """Return the error without its traceback, which would hold on to what was read."""
    return ModelError(error.message, remedy=error.remedy)
