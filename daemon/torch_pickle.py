"""The pickle in a PyTorch checkpoint that says which tensors there are and where they lie.

The rule this module protects: a pickle is a program, and this one may name nothing but what tensors
need. Every name goes through ``_Tensors.find_class`` before it can be called; none is imported.
What pickles may be given is immutable, so that they cannot change this module for later ones.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from typing import Any, NamedTuple

from daemon.errors import ModelError
from daemon.safetensors_header import DAMAGED

# torch's storage types that can be read: the data type's name in safetensors.
STORAGES = {"HalfStorage": "F16", "BFloat16Storage": "BF16", "FloatStorage": "F32"}

_REBUILD = ("torch._utils", "_rebuild_tensor_v2")
_MALFORMED = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
    OverflowError,
    RecursionError,
)


class Storage(NamedTuple):
    """A run of numbers in the checkpoint: ``elements`` of the type ``dtype``, in record ``key``."""

    key: str
    dtype: str
    elements: int


class TensorPlace(NamedTuple):
    """A tensor's view of its storage; ``offset`` and ``strides`` count elements, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def reach(self) -> int:
        """Elements from the tensor's first to its last, both included; 0 when it is empty."""
        if 0 in self.shape:
            return 0
        steps = zip(self.shape, self.strides, strict=True)
        return 1 + sum((size - 1) * stride for size, stride in steps)


def read_tensor_places(name: str, data: bytes) -> dict[str, TensorPlace]:
    """Return the tensors by name that the pickle ``data`` of the checkpoint ``name`` declares.

    Raises:
        ModelError: it names anything that tensors do not need, is malformed, or holds other things
            than tensors by name.
    """
    try:
        _check_memo(data)
        loaded = _Tensors(name, data).load()
    except _MALFORMED as error:
        raise ModelError(
            f"{name} is damaged: its data.pkl cannot be read: {error}", remedy=DAMAGED
        ) from None
    if not isinstance(loaded, dict):
        raise _no_weights(name, f"a {type(loaded).__name__}")
    # Not loaded.items(): a pickle may give an OrderedDict attributes of any name.
    found = dict(dict.items(loaded))
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, TensorPlace):
            raise _no_weights(name, f"a {type(value).__name__} under {key!r}")
    return found


def _check_memo(data: bytes) -> None:
    """Refuse a memo larger than the pickle, for which the unpickler would reserve memory."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "LONG_BINPUT" and int(str(argument)) > len(data):
            raise ValueError(f"it remembers an object under the number {argument}")


class _Tensors(pickle.Unpickler):
    """An unpickler for which only what makes tensors exists."""

    def __init__(self, name: str, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._name = name

    def find_class(self, module: str, name: str, /) -> Any:
        """Return what stands for ``module.name``; refuse what is not known to be harmless."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == _REBUILD:
            return self._rebuild
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and name.endswith("Storage"):
            raise ModelError(
                f"{self._name} holds tensors of torch.{name}, which cannot be read",
                remedy="save the weights in float16, bfloat16 or float32",
            )
        raise ModelError(
            f"{self._name} is refused: it asks to run {module}.{name}, which no tensor needs",
            remedy="trust no copy of this file; download the weights from their publisher, "
            "as safetensors if there are any",
        )

    def persistent_load(self, pid: Any, /) -> Storage:
        """Return the storage that a persistent id names.

        ``pid``: ("storage", storage type, key, device, elements), as torch.save writes it.
        """
        kind, dtype, key, _device, elements = pid
        if kind != "storage" or dtype not in STORAGES.values() or not isinstance(key, str):
            raise ValueError(f"{pid!r} is no storage")
        return Storage(key=key, dtype=dtype, elements=_count(elements))

    def _rebuild(
        self, storage: Any, offset: Any, shape: Any, strides: Any, *_others: Any
    ) -> TensorPlace:
        """Stand for ``torch._utils._rebuild_tensor_v2``; gradients and hooks do not matter here."""
        if not isinstance(storage, Storage) or len(shape) != len(strides):
            raise ValueError(f"a tensor of the shape {shape!r} has the strides {strides!r}")
        place = TensorPlace(
            storage=storage,
            offset=_count(offset),
            shape=tuple(map(_count, shape)),
            strides=tuple(map(_count, strides)),
        )
        if place.offset + place.reach > storage.elements:
            raise ValueError(
                f"a tensor of {math.prod(place.shape)} elements ends at "
                f"{place.offset + place.reach} of a storage of {storage.elements}"
            )
        return place


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no size")
    return value


def _no_weights(name: str, found: str) -> ModelError:
    return ModelError(
        f"{name} is no checkpoint of weights: it holds {found}, and not tensors by name",
        remedy="use the file of the model's weights alone, as its publisher ships it",
    )
