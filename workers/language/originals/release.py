"""A release's files taken together: whether the weights are those that ``params.json`` tells of.

The rule this module protects: the shapes that ``params.json`` asks for are those of the files,
tensor by tensor, before any weight is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from daemon.errors import ModelError
from workers.language.originals.names import (
    EMBEDDINGS,
    FIRST_GATE,
    FREQUENCIES,
    OUTPUT,
    split_axis,
)
from workers.language.originals.params import FILE, Params, read_params
from workers.language.originals.shards import Shape, Shard, find_shards, open_shard


@dataclass(frozen=True, kw_only=True)
class Release:
    """The configuration and the opened weights files of a folder called ``name``."""

    name: str
    params: Params
    shards: Sequence[Shard]

    @property
    def names(self) -> set[str]:
        """Every tensor's name, without the rotary frequencies that Meta's files carry along."""
        return {name for shard in self.shards for name in shard.shapes} - {FREQUENCIES}

    @property
    def is_tied(self) -> bool:
        """Whether the embeddings are the output layer, too."""
        return OUTPUT not in self.names

    def check(self) -> dict[str, Shape]:
        """Return the shape of every tensor, having checked it.

        Raises:
            ModelError: names the first tensor that is missing, unknown or of another shape.
        """
        wanted = self._wanted()
        unknown = sorted(self.names - wanted.keys())
        if unknown:
            raise ModelError(
                f"{self.name} has a tensor {unknown[0]}, which a llama network of the sizes in "
                f"its {FILE} does not have",
                remedy=f"use the {FILE} that was published with the weights; if it is, this is "
                "another network than llama's: use the model's Hugging Face or MLX folder",
            )
        for name, shape in wanted.items():
            self._check_shape(name, shape)
        return wanted

    def read(self, name: str) -> mx.array:
        """Return a tensor put together from its pieces, not evaluated yet."""
        found = self._having(name)
        axis = self._axis(name)
        if axis is None or len(found) == 1:
            return found[0].read(name)
        return mx.concatenate([shard.read(name) for shard in found], axis=axis)

    def _wanted(self) -> dict[str, Shape]:
        """Return the shape that every tensor has to have, (outputs, inputs) or (size,)."""
        params = self.params
        vocabulary = params.vocab_size or self._joined(EMBEDDINGS)[0]
        shapes: dict[str, Shape] = {
            EMBEDDINGS: (vocabulary, params.dim),
            "norm.weight": (params.dim,),
        }
        if not self.is_tied:
            shapes[OUTPUT] = (vocabulary, params.dim)
        layer = _layer_shapes(params, params.hidden_dim or self._joined(FIRST_GATE)[0])
        for number in range(params.layers):
            shapes |= {f"layers.{number}.{name}.weight": shape for name, shape in layer.items()}
        return shapes

    def _check_shape(self, name: str, shape: Shape) -> None:
        found = self._joined(name)
        if found != shape:
            raise ModelError(
                f"{self.name} contradicts its {FILE}: {name} has the shape {found}, and has to "
                f"have {shape}",
                remedy=f"see whether a consolidated file is missing, or use the {FILE} that was "
                "published with the weights",
            )

    def _joined(self, name: str) -> Shape:
        """Return the shape of a tensor that is put together from its pieces."""
        found = [shard.shapes[name] for shard in self._having(name)]
        first, axis = found[0], self._axis(name)
        if any(_others(shape, axis) != _others(first, axis) for shape in found):
            raise ModelError(
                f"{self.name} is a mix of files: the pieces of {name} have the shapes "
                f"{', '.join(map(str, found))}",
                remedy="download all consolidated files of one model",
            )
        if axis is None or axis >= len(first):
            return first
        return (*first[:axis], sum(shape[axis] for shape in found), *first[axis + 1 :])

    def _having(self, name: str) -> list[Shard]:
        """Return the files that have a tensor or a piece of it, at least one."""
        found = [shard for shard in self.shards if name in shard.shapes]
        if not found:
            raise ModelError(
                f"{self.name} is incomplete: none of its files has the tensor {name}",
                remedy=f"download the weights again, or use the {FILE} published with them",
            )
        return found

    def _axis(self, name: str) -> int | None:
        """Return the axis along which a tensor is split over the files.

        Llama 3 splits its embeddings by rows, Llama 1 and 2 by columns; their width tells.
        """
        if name == EMBEDDINGS and self._having(name)[0].shapes[name][-1:] == (self.params.dim,):
            return 0
        return split_axis(name)


def open_release(folder: Path) -> Release:
    """Open a folder with ``params.json`` and ``consolidated.*``; reads headers alone.

    Raises:
        ModelError: a file is missing or damaged.
    """
    params = read_params(folder)
    shards = [open_shard(path) for path in find_shards(folder)]
    return Release(name=folder.name, params=params, shards=shards)


def _layer_shapes(params: Params, hidden: int) -> dict[str, Shape]:
    queries, keys = params.heads * params.head_dim, params.kv_heads * params.head_dim
    return {
        "attention.wq": (queries, params.dim),
        "attention.wk": (keys, params.dim),
        "attention.wv": (keys, params.dim),
        "attention.wo": (params.dim, queries),
        "feed_forward.w1": (hidden, params.dim),
        "feed_forward.w2": (params.dim, hidden),
        "feed_forward.w3": (hidden, params.dim),
        "attention_norm": (params.dim,),
        "ffn_norm": (params.dim,),
    }


def _others(shape: Shape, axis: int | None) -> tuple[int, ...]:
    """Return the number of axes, and the sizes of all but ``axis``, which have to agree."""
    return (len(shape), *(size for place, size in enumerate(shape) if place != axis))
