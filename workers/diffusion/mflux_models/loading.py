"""Loading a model of mflux's, and giving each job its own over the same weights.

The rule this module protects: what is kept warm is never changed. mflux would bake LoRA files into
a model when it is made; here they are put, unbaked, on the job's own module tree.
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_reduce

from daemon.errors import ModelError, NonFiniteError, StudioqError
from workers.diffusion.mflux_models.variants import PACKAGES, Variant, require
from workers.failures import is_out_of_memory
from workers.language.formats import identify
from workers.language.headers import read_safetensors_header
from workers.memory import preserved_random_state
from workers.models import Loader, own_tree

_WEIGHTS = "*/*.safetensors"
_CONFIGS = "mflux.models.common.config.model_config:ModelConfig"
_LORAS = "mflux.models.common.lora.mapping.lora_loader:LoRALoader"

# Of what mflux prints about LoRA files: which file, how many of its keys fit, which did not.
_TELLING = re.compile(r"Applying LoRA|keys|^\s+- |and \d+ more")


@dataclass(frozen=True, kw_only=True)
class MfluxModel:
    """A loaded model: mflux's object (``network``), its weights' bytes and fingerprint."""

    network: Any
    variant: Variant
    name: str
    fingerprint: str
    bytes: int


def load_mflux(folder: Path) -> MfluxModel:
    """Load the model of a folder, all weights read.

    Raises:
        ModelError: mflux is missing, or cannot load the folder.
    """
    variant = require(folder, folder.name)
    identity = _fingerprint(folder)
    with preserved_random_state(), _failures(folder.name), redirect_stdout(io.StringIO()):
        config = _named(_CONFIGS).from_name(variant.key)
        network = _named(variant.network)(model_path=str(folder), model_config=config)
        mx.eval(network.parameters())
    network.vae.decode = _refusing_nonfinite(network.vae.decode)
    return MfluxModel(
        network=network,
        variant=variant,
        name=folder.name,
        fingerprint=identity,
        bytes=tree_reduce(lambda total, array: total + array.nbytes, network.parameters(), 0),
    )


def estimate_bytes(folder: Path) -> int:
    """Return the size of a folder's weights on the disk, which mflux keeps in bfloat16."""
    return sum(file.stat().st_size for file in _files(folder))


def own_copy(model: MfluxModel) -> MfluxModel:
    """Return the model with modules, callbacks and prompt cache of its own."""
    network = own_tree(model.network)
    network.callbacks = type(network.callbacks)()
    return replace(model, network=network)


MFLUX: Loader[MfluxModel] = Loader(load=load_mflux, estimate=estimate_bytes, own=own_copy)


def apply_loras(model: MfluxModel, files: Sequence[Path], scales: Sequence[float]) -> list[str]:
    """Put LoRA files on a model that is the caller's own; return what mflux says of each.

    ``files`` must end in ``.safetensors``, by which MLX knows them.

    Raises:
        ModelError: a file cannot be read, or does not fit the model or any part of it.
    """
    said = io.StringIO()
    with preserved_random_state(), _failures("the LoRA file"), redirect_stdout(said):
        _named(_LORAS).load_and_apply_lora(
            lora_mapping=_named(model.variant.lora_mapping).get_mapping(),
            transformer=model.network.transformer,
            lora_paths=[str(file) for file in files],
            lora_scales=list(scales),
            bake_lora=False,
        )
    return [line.strip() for line in said.getvalue().splitlines() if _TELLING.search(line)]


def versions() -> dict[str, str]:
    """Return the versions of the optional packages."""
    return {package: metadata.version(package) for package in PACKAGES}


def _named(place: str) -> Any:
    """Import what ``module:name`` says."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _files(folder: Path) -> tuple[Path, ...]:
    """Return the weights of the components, and not a second copy at the folder's top."""
    return tuple(sorted(folder.glob(_WEIGHTS)))


def _fingerprint(folder: Path) -> str:
    weights = (
        (file, read_safetensors_header(file, name=f"{file.parent.name}/{file.name}"))
        for file in _files(folder)
    )
    return identify(sorted(folder.glob("*/*config.json")), weights)


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Turn whatever mflux raises into one message; an allocator's refusal stays what it is."""
    try:
        yield
    except StudioqError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"mflux cannot use {what}: {type(error).__name__}: {str(error)[:500]}",
            remedy="see that it is complete, and of the kind that its name says",
        ) from error


def _refusing_nonfinite(decode: Any) -> Any:
    """Wrap a VAE's ``decode`` so that what is not a picture never becomes black pixels."""

    def decoded(*inputs: Any, **options: Any) -> Any:
        picture = decode(*inputs, **options)
        require_finite(picture, "the decoded picture")
        return picture

    return decoded


def require_finite(values: mx.array, what: str) -> None:
    """Evaluate ``values``.

    Raises:
        NonFiniteError: one of them is NaN or infinite.
    """
    if not mx.isfinite(values).all().item():
        raise NonFiniteError(f"{what} has values that are NaN or infinite")
