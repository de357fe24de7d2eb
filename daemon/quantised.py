"""What may be made of a model that is quantised already.

The rule this module protects: weights are rounded twice only if that was asked for in so many
words. Asked when a job is submitted, where the source's ``config.json`` or GGUF header tells; the
engine asks again, also of formats whose weights alone tell. Imports neither the ledger nor MLX.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from daemon.errors import ModelError
from daemon.gguf_header import QUANTISED, read_gguf_header
from daemon.models import model_format
from daemon.regular_files import read_regular
from daemon.specs import ConvertSpec

# Formats whose config.json says whether the weights are quantised.
_TELLING = frozenset({"hf", "mlx"})


def check_source(spec: ConvertSpec, path: Path) -> None:
    """Refuse what the configuration of the source at ``path`` speaks against.

    Raises:
        ModelError: ``field`` names the option of the spec.
    """
    found, config = model_format(path), _config(path)
    if found == "gguf":
        _check_gguf(spec, path)
    elif "quantization" in config:
        check_not_again(spec, describe(config["quantization"]))
    elif spec.dequantize and found in _TELLING and "quantization_config" not in config:
        raise not_quantised(spec)


def _check_gguf(spec: ConvertSpec, path: Path) -> None:
    """Refuse by the types of a GGUF file's tensors."""
    file = path if path.is_file() else next(path.glob("*.gguf"))
    types = sorted({tensor.dtype for tensor in read_gguf_header(file).tensors} & QUANTISED)
    if types:
        check_not_again(spec, f"as {', '.join(types)}")
    elif spec.dequantize:
        raise not_quantised(spec)


def check_not_again(spec: ConvertSpec, how: str) -> None:
    """Refuse to quantise a source that is quantised, unless it is dequantised first.

    ``how`` says how it is quantised: ``with 4 bits``.

    Raises:
        ModelError: names the model, how it is quantised, and what to do.
    """
    if spec.quantize is not None and not spec.dequantize:
        raise ModelError(
            f"{spec.model} is already quantized {how}, and what is quantized again loses more than "
            "what is quantized once",
            field="quantize",
            remedy="convert the model that it was made from, or add --dequantize to do it anyway",
        )


def not_quantised(spec: ConvertSpec) -> ModelError:
    """Return the refusal to dequantise a source that is not quantised."""
    return ModelError(
        f"{spec.model} is not quantized",
        field="dequantize",
        remedy="leave --dequantize out",
    )


def describe(settings: object) -> str:
    """Return what MLX's ``quantization`` settings say: ``with 4 bits``, ``with 3 to 6 bits``."""
    bits = sorted(set(_bits(settings)))
    if not bits:
        return "with a number of bits that its config.json does not name"
    return f"with {bits[0]} bits" if len(bits) == 1 else f"with {bits[0]} to {bits[-1]} bits"


def _bits(settings: object) -> Iterator[int]:
    """Yield the bits of the settings, and of those that single layers have of their own."""
    if not isinstance(settings, Mapping):
        return
    if isinstance(settings.get("bits"), int):
        yield settings["bits"]
    for value in settings.values():
        yield from _bits(value)


def _config(path: Path) -> Mapping[str, Any]:
    """Return the configuration of a model's folder, or nothing where none can be read.

    What is wrong with it is told by the job that loads the model.
    """
    try:
        settings = json.loads(read_regular(path / "config.json"))
    except (OSError, ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}
