"""What an adapter's files declare: its settings, and the name and shape of every tensor.

The rule this module protects: daemon and engine read an adapter with the same code, from headers
alone, so what is refused when a job is submitted is what the engine would refuse. Imports no MLX.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from daemon.adapter_config import CONFIG, AdapterConfig, parse_config, read_object
from daemon.errors import ModelError
from daemon.first_adapters import first_config, first_name, is_first_form
from daemon.lfs_pointers import check_no_pointer
from daemon.npz_header import read_npz_header
from daemon.peft_adapters import is_peft, mlx_shapes, parse_peft_config
from daemon.safetensors_header import WeightsHeader, read_safetensors_header

WEIGHTS = "adapters.safetensors"
NEEDED = f"an adapter is a folder with {WEIGHTS} and {CONFIG}"

Shapes = Mapping[str, tuple[int, ...]]

_ZIP = b"PK\x03\x04"
_FLOATS = frozenset({"F32", "F16", "BF16"})
_NPZ_FLOATS = _FLOATS - {"BF16"}
_MOST_HEADER = 16 * 2**20
_MOST_BYTES = 4 * 2**30


class Form(Enum):
    """Who wrote an adapter, which decides how its tensors are called and laid out."""

    MLX = "mlx-lm"
    PEFT = "PEFT"
    FIRST = "MLX's first example"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What an adapter's files say before a number is read.

    ``shapes``: name and shape of every tensor in mlx-lm's form; ``archive``: the file is NumPy's.
    """

    form: Form
    config: AdapterConfig
    shapes: Shapes
    archive: bool

    @property
    def complete(self) -> bool:
        """Whether no tensor that the settings ask for may be left out."""
        return self.form is Form.MLX and self.config.kind != "full"


def read_adapter(weights: Path, config: Path | None, *, name: str = WEIGHTS) -> Adapter:
    """Read the settings, and the header of the weights, in whichever form they are.

    ``name`` is what messages call the file of weights. ``config`` may name a file that is not
    there.

    Raises:
        ModelError: a file is missing, damaged or none of an adapter's, or a value is out of bounds.
    """
    if not weights.is_file():
        raise ModelError(f"the adapter has no {name}", remedy=NEEDED)
    check_no_pointer(weights, name)
    archive = _is_zip(weights)
    shapes = _npz_shapes(weights, name) if archive else _shapes(weights, name)
    if archive and is_first_form(shapes):
        named = {first_name(tensor): shape for tensor, shape in shapes.items()}
        return Adapter(form=Form.FIRST, config=first_config(shapes), shapes=named, archive=True)
    if config is None or (archive and not config.is_file()):
        raise _unsettled(shapes) if archive else _without_config()
    data = read_object(config, NEEDED)
    if is_peft(data):
        settings = parse_peft_config(data, shapes)
        return Adapter(form=Form.PEFT, config=settings, shapes=mlx_shapes(shapes), archive=archive)
    return Adapter(form=Form.MLX, config=parse_config(data), shapes=shapes, archive=archive)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _shapes(path: Path, name: str) -> Shapes:
    """Return name and shape of every tensor in a safetensors file, from its header."""
    header = read_safetensors_header(path, name=name, most=_MOST_HEADER)
    return _of_floats(header, _FLOATS, "use adapters as mlx-lm or PEFT write them")


def _npz_shapes(path: Path, name: str) -> Shapes:
    """Return name and shape of every array of an archive, without unpacking one."""
    remedy = "give the adapters.npz that the training wrote"
    header = _reworded(lambda: read_npz_header(path, name=name), remedy)
    size = sum(tensor.bytes for tensor in header.tensors)
    if size > _MOST_BYTES:
        raise ModelError(
            f"the adapter unpacks to {size} bytes; at most {_MOST_BYTES} are read", remedy=remedy
        )
    return _of_floats(header, _NPZ_FLOATS, remedy)


def _reworded(read: Callable[[], WeightsHeader], remedy: str) -> WeightsHeader:
    try:
        return read()
    except ModelError as error:
        raise ModelError(error.message, remedy=remedy) from None


def _of_floats(header: WeightsHeader, allowed: Collection[str], remedy: str) -> Shapes:
    for tensor in header.tensors:
        if tensor.dtype not in allowed:
            raise ModelError(
                f"the adapter's {tensor.name} is of the type {tensor.dtype}, not one of "
                f"{', '.join(sorted(allowed))}",
                remedy=remedy,
            )
        if math.prod(tensor.shape) == 0:
            raise ModelError(f"the adapter's {tensor.name} is empty", remedy=remedy)
    return {tensor.name: tensor.shape for tensor in header.tensors}


def _unsettled(shapes: Shapes) -> ModelError:
    return ModelError(
        f"the npz has mlx-lm's names ({min(shapes, default='none')}), and no {CONFIG} beside "
        "it, which alone says its scale",
        remedy=f"put a {CONFIG} beside it, with the values that it was trained with, such as "
        '{"num_layers": 16, "lora_parameters": {"rank": 8, "scale": 20, "dropout": 0}}',
    )


def _without_config() -> ModelError:
    return ModelError(f"the adapter has no {CONFIG}", remedy=NEEDED)
