"""The pickle in a PyTorch checkpoint that says which tensors there are and where they lie.

The rule this module protects: a pickle is a program, and this one is not run. Its opcodes are
followed here, and only those that ``torch.save`` writes for tensors by name; nothing is imported,
called, hashed but texts, or nested deeper than the arguments of a tensor. What it makes is in these
values alone and goes with them.

Source: the opcodes of protocols 2 to 5 that torch 2.13 writes for a state_dict, and older releases
of protocol 2; numbers and names as in ``torch._utils._rebuild_tensor_v2``.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from daemon.errors import ModelError
from daemon.safetensors_header import DAMAGED
from daemon.tensor_sizes import checked_shape, checked_size

# torch's storage types that can be read: the data type's name in safetensors.
STORAGES = {"HalfStorage": "F16", "BFloat16Storage": "BF16", "FloatStorage": "F32"}

# A tensor takes about 140 bytes and 40 opcodes of an index.
MOST_INDEX = 4 * 2**20
_MOST_OPCODES = 2**20
_MOST_VALUES = 16  # of a tuple

_ORDERED_DICT = ("collections", "OrderedDict")
_REBUILD = ("torch._utils", "_rebuild_tensor_v2")
_MALFORMED = (ValueError, TypeError, LookupError, OverflowError, RecursionError, MemoryError)
_SHOWN = 80


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
        ModelError: it names anything that tensors do not need, is malformed or longer than
            ``MOST_INDEX``, or holds other things than tensors by name.
    """
    try:
        found = _followed(name, data)
    except _MALFORMED as error:
        raise ModelError(
            f"{name} is damaged: its data.pkl cannot be read: {error}", remedy=DAMAGED
        ) from None
    if type(found) is not dict:
        raise _no_weights(name, f"a {_called(found)}")
    for key, value in found.items():
        if not isinstance(value, TensorPlace):
            raise _no_weights(name, f"a {_called(value)} under {key[:_SHOWN]!r}")
    return found


def _followed(name: str, data: bytes) -> Any:
    """Return what the pickle makes."""
    if len(data) > MOST_INDEX:
        raise ValueError(f"it has {len(data)} bytes; at most {MOST_INDEX} are read")
    machine = _Machine(name)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if count >= _MOST_OPCODES:
            raise ValueError(f"it has more than {_MOST_OPCODES} opcodes")
        machine.follow(opcode.name, argument)
    return machine.result


@dataclass(frozen=True, kw_only=True)
class _Name:
    """Something of Python's that the pickle names, one of the few that are known."""

    module: str
    name: str


_MARK = object()


class _Machine:
    """The unpickler's stack and memo, for the opcodes in ``_OPCODES`` and for no other."""

    def __init__(self, name: str) -> None:
        self._checkpoint = name
        self._stack: list[Any] = []
        self._memo: list[Any] = []

    @property
    def result(self) -> Any:
        """What is left on the stack at the end."""
        if len(self._stack) != 1:
            raise ValueError(f"it ends with {len(self._stack)} values, and not with one")
        return self._stack[0]

    def follow(self, opcode: str, argument: Any) -> None:
        """Do what an opcode says."""
        if opcode in _IGNORED:
            return
        if opcode in _PUSHED:
            self._stack.append(_PUSHED[opcode](argument))
        elif opcode in _TUPLES:
            self._tuple(self._popped(_TUPLES[opcode]))
        elif opcode in _OPCODES:
            _OPCODES[opcode](self, argument)
        else:
            raise ValueError(f"it has the opcode {opcode}, which tensors do not need")

    def _popped(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("it takes more values from its stack than there are")
        found = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        if any(value is _MARK for value in found):
            raise ValueError("it takes a mark for a value")
        return found

    def _popped_to_mark(self) -> list[Any]:
        count = 0
        for value in reversed(self._stack):
            if value is _MARK:
                break
            count += 1
        else:
            raise ValueError("it looks for a mark that is not there")
        found = self._popped(count)
        self._stack.pop()
        return found

    def _tuple(self, values: list[Any]) -> None:
        """Push a tuple; one in one is as deep as the arguments of a tensor go."""
        if len(values) > _MOST_VALUES:
            raise ValueError(
                f"it has a tuple of {len(values)} values; those of tensors are shorter"
            )
        for value in values:
            if type(value) is tuple and any(type(inner) is tuple for inner in value):
                raise ValueError("its tuples are nested deeper than those of tensors")
        self._stack.append(tuple(values))

    def _marked_tuple(self, _argument: Any) -> None:
        self._tuple(self._popped_to_mark())

    def _put(self, argument: Any) -> None:
        """Remember the topmost value; torch counts what it remembers."""
        number = len(self._memo) if argument is None else int(argument)
        if number > len(self._memo):
            raise ValueError(f"it remembers a value under the number {number}")
        (value,) = self._popped(1)
        self._stack.append(value)
        if number == len(self._memo):
            self._memo.append(value)
        else:
            self._memo[number] = value

    def _get(self, argument: Any) -> None:
        self._stack.append(self._memo[argument])

    def _global(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(self._known(module, name))

    def _stack_global(self, _argument: Any) -> None:
        module, name = self._popped(2)
        if type(module) is not str or type(name) is not str:
            raise ValueError("it names something by what is no text")
        self._stack.append(self._known(module, name))

    def _known(self, module: str, name: str) -> _Name:
        """Return what stands for ``module.name``; refuse what is not known to be harmless."""
        is_storage = module == "torch" and name.endswith("Storage")
        if (module, name) in (_ORDERED_DICT, _REBUILD) or (is_storage and name in STORAGES):
            return _Name(module=module, name=name)
        if is_storage:
            raise ModelError(
                f"{self._checkpoint} holds tensors of torch.{name[:_SHOWN]}, which cannot be read",
                remedy="save the weights in float16, bfloat16 or float32",
            )
        raise ModelError(
            f"{self._checkpoint} is refused: it asks to run "
            f"{module[:_SHOWN]}.{name[:_SHOWN]}, which no tensor needs",
            remedy="trust no copy of this file; download the weights from their publisher, "
            "as safetensors if there are any",
        )

    def _reduce(self, _argument: Any) -> None:
        """Push what a call of one of the known names is meant to make."""
        called, arguments = self._popped(2)
        if type(called) is not _Name or type(arguments) is not tuple:
            raise ValueError(f"it calls a {_called(called)} with a {_called(arguments)}")
        if (called.module, called.name) == _ORDERED_DICT and not arguments:
            self._stack.append({})
        elif (called.module, called.name) == _REBUILD and len(arguments) >= 4:
            self._stack.append(_place(*arguments[:4]))
        else:
            raise ValueError(f"it calls {called.name} with {len(arguments)} arguments")

    def _persistent(self, _argument: Any) -> None:
        """Push a storage, for ("storage", its type, key, device, elements)."""
        (named,) = self._popped(1)
        if type(named) is not tuple or len(named) != 5:
            raise ValueError("it names a storage otherwise than torch does")
        kind, dtype, key, _device, elements = named
        known = STORAGES.get(dtype.name) if type(dtype) is _Name else None
        if kind != "storage" or known is None or type(key) is not str:
            raise ValueError("it names a storage of an unknown type")
        self._stack.append(Storage(key=key, dtype=known, elements=checked_size(elements)))

    def _set_item(self, _argument: Any) -> None:
        self._set(self._popped(2))

    def _set_items(self, _argument: Any) -> None:
        self._set(self._popped_to_mark())

    def _set(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(values) % 2:
            raise ValueError(f"it puts {len(values)} values into a {_called(target)}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) is not str:
                raise ValueError(f"it has an item under a {_called(key)}, and not under a name")
            target[key] = value

    def _build(self, _argument: Any) -> None:
        """Drop the attributes of a dictionary: state_dict() gives it one, ``_metadata``."""
        target, state = self._popped(2)
        if type(target) is not dict or type(state) is not dict:
            raise ValueError(f"it gives attributes to a {_called(target)}")
        self._stack.append(target)


def _itself(argument: Any) -> Any:
    return argument


_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
_PUSHED: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE"), _itself),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _itself),
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_DICT": lambda _: {},
    "NONE": lambda _: None,
    "NEWFALSE": lambda _: False,
    "NEWTRUE": lambda _: True,
    "MARK": lambda _: _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OPCODES: Mapping[str, Callable[[_Machine, Any], None]] = {
    "TUPLE": _Machine._marked_tuple,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._put,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "BINPERSID": _Machine._persistent,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "BUILD": _Machine._build,
}


def _place(storage: Any, offset: Any, shape: Any, strides: Any) -> TensorPlace:
    """Return the place of a tensor, from the first arguments of ``_rebuild_tensor_v2``."""
    if type(storage) is not Storage or type(shape) is not tuple or type(strides) is not tuple:
        raise ValueError(f"it makes a tensor of a {_called(storage)}")
    if len(shape) != len(strides):
        raise ValueError(f"a tensor of {len(shape)} axes has {len(strides)} strides")
    place = TensorPlace(
        storage=storage,
        offset=checked_size(offset),
        shape=checked_shape(shape),
        strides=tuple(map(checked_size, strides)),
    )
    end = place.offset + place.reach
    if end > storage.elements or math.prod(place.shape) > storage.elements:
        raise ValueError(
            f"a tensor of {math.prod(place.shape)} elements ends at {end} of a storage of "
            f"{storage.elements}"
        )
    return place


def _called(value: Any) -> str:
    """Return what messages call a value, without looking into it."""
    return value.name if type(value) is _Name else type(value).__name__


def _no_weights(name: str, found: str) -> ModelError:
    return ModelError(
        f"{name} is no checkpoint of weights: it holds {found}, and not tensors by name",
        remedy="use the file of the model's weights alone, as its publisher ships it",
    )
