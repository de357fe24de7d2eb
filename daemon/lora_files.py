"""Looks at an uploaded LoRA file before the job is queued.

The rule this module protects: a file that is cut short or holds no LoRA at all is refused while its
owner is still at the terminal. Which layers of which model it fits is found out by the job, which
has the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from daemon.errors import ModelError, SpecRefusedError
from daemon.safetensors_header import WeightsHeader, read_safetensors_header

# A LoRA's two matrices as kohya, PEFT and old versions of diffusers name them.
_LORA = re.compile(r"[._]lora[._](up|down|A|B|linear_layer)\b")
_OTHERS = re.compile(r"\.(hada_w\d|lokr_w\d|oft_|ia3_)\w*")
_PICKLES = (b"PK\x03\x04", b"\x80")  # a zip archive or a pickle, both of which torch.save writes
_MOST_HEADER = 16 * 2**20


def check_loras(files: Mapping[str, tuple[str, Path]]) -> None:
    """Check the LoRA files of a diffusion, by their places ``lora.0.file``, ``lora.1.file``, ….

    ``files`` maps places to the name for messages and the file.

    Raises:
        SpecRefusedError: names the file and what is wrong with it.
    """
    for place, (name, path) in files.items():
        if place.startswith("lora."):
            _check_lora(place, name, path)


def _check_lora(field: str, name: str, path: Path) -> None:
    try:
        tensors = [tensor.name for tensor in _header(name, path).tensors]
    except ModelError as error:
        raise SpecRefusedError(error.message, field=field, remedy=error.remedy) from None
    except OSError as error:
        raise SpecRefusedError(f"{name} cannot be read: {error.strerror}", field=field) from error
    if not any(_LORA.search(tensor) for tensor in tensors):
        raise _no_lora(field, name, tensors)


def _header(name: str, path: Path) -> WeightsHeader:
    try:
        return read_safetensors_header(path, name=name, most=_MOST_HEADER)
    except ModelError:
        with path.open("rb") as file:
            if not file.read(4).startswith(_PICKLES):
                raise
    raise ModelError(
        f"{name} was written by PyTorch as a pickle, which may run code and is never read",
        remedy="use the file's version in safetensors",
    )


def _no_lora(field: str, name: str, tensors: Sequence[str]) -> SpecRefusedError:
    other = next(filter(None, map(_OTHERS.search, tensors)), None)
    if other is not None:
        reason = f"holds tensors called {other[0]!r}, another method than LoRA, which is not read"
    elif tensors:
        reason = f"holds no LoRA: its tensors are called {tensors[0]!r} and so on"
    else:
        reason = "holds no tensors"
    return SpecRefusedError(
        f"{name} {reason}",
        field=field,
        remedy="give a LoRA file of kohya's or PEFT's form; a whole model belongs under a model "
        "root (studioq models path) and is named with --model",
    )
