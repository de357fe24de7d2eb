"""A model that is opened and not read: its network, and where each of its tensors comes from.

The rule this module protects: whoever reads a model decides how much of it is in memory at once.
Loading fills the network one tensor after another; a conversion writes each away before it reads
the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tokenizer_utils import TokenizerWrapper


@dataclass(frozen=True, kw_only=True)
class SourceTensor:
    """One tensor, named, shaped and ordered as mlx-lm's network has it.

    ``read`` gives its numbers, evaluated or not. It can be called once: a source keeps nothing
    that it has given away.
    """

    shape: tuple[int, ...]
    dtype: mx.Dtype
    read: Callable[[], mx.array]

    @property
    def bytes(self) -> int:
        """Bytes of its numbers in memory."""
        size = self.dtype.size
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """An opened model.

    ``network`` is mlx-lm's, its layers quantised where the stored ones are; its parameters are
    placeholders of the right shape that were never computed. ``config`` is what ``config.json``
    says of it, in mlx-lm's terms. ``tensors`` has each of its parameters by name, in the
    network's order. ``unwritable`` says why no ``config.json`` can express the network, if none
    can.
    """

    network: nn.Module
    config: dict[str, Any]
    tokenizer: TokenizerWrapper
    tensors: Mapping[str, SourceTensor]
    unwritable: str | None = None

    def bytes_of(self, names: Iterable[str]) -> int:
        """Return the bytes of some of its tensors."""
        return sum(self.tensors[name].bytes for name in names)


def source_of(
    network: nn.Module, config: dict[str, Any], tokenizer: TokenizerWrapper
) -> ModelSource:
    """Return a source that gives away the arrays of ``network``, which may be lazy.

    The network gets placeholders in their stead.
    """
    arrays = dict(tree_flatten(network.parameters()))
    tensors = {
        name: SourceTensor(
            shape=tuple(array.shape), dtype=array.dtype, read=_giving_away(arrays, name)
        )
        for name, array in arrays.items()
    }
    set_placeholders(network)
    return ModelSource(network=network, config=config, tokenizer=tokenizer, tensors=tensors)


def _giving_away(arrays: dict[str, mx.array], name: str) -> Callable[[], mx.array]:
    return lambda: arrays.pop(name)


def set_placeholders(network: nn.Module) -> None:
    """Replace every parameter by one of its shape and type that is never computed.

    A network that was just made holds random numbers that wait for their computation, and one that
    was loaded lazily holds its files; placeholders hold nothing.
    """
    parameters = tree_flatten(network.parameters())
    empty = [(name, mx.zeros(array.shape, array.dtype)) for name, array in parameters]
    network.update(tree_unflatten(empty))


def fill(source: ModelSource, change: Callable[[mx.array], mx.array]) -> nn.Module:
    """Read every tensor into the network, each put through ``change``; return the network.

    Takes the memory of the network and of one tensor more.
    """
    for name, array in _read(source):
        changed = change(array)
        mx.eval(changed)
        source.network.update(tree_unflatten([(name, changed)]))
    return source.network


def _read(source: ModelSource) -> Iterator[tuple[str, mx.array]]:
    for name, tensor in source.tensors.items():
        yield name, tensor.read()
