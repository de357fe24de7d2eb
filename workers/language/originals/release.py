"""A model's weights files taken together, under the names that mlx-lm's network has.

The rule this module protects: the tensors of the files are those of the network, each of its shape
and kind, before any weight is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

from daemon.errors import ModelError
from daemon.release_names import (
    EMBEDDINGS,
    OUTPUT,
    are_publishers_names,
    follows_from_settings,
    mlx_name,
    publishers_name,
    split_axis,
)
from workers.language.headers import TensorInfo
from workers.language.originals.shards import DTYPES, PthShard, Shard

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Release:
    """The opened weights files of the model ``name``.

    ``settings``: the file with its sizes, as messages call it. ``width``: that of its embeddings.
    ``stored``: the files' name of each tensor, by mlx-lm's. ``has_publishers_names``: whether they
    are Meta's and Mistral's.
    """

    name: str
    settings: str
    width: int | None
    shards: Sequence[Shard]
    stored: Mapping[str, str]
    has_publishers_names: bool

    @property
    def is_tied(self) -> bool:
        """Whether the embeddings are the output layer, too."""
        return OUTPUT not in self.stored

    def shape(self, name: str) -> Shape:
        """Return the shape of a tensor that is put together from its pieces.

        Raises:
            ModelError: it is in no file, or its pieces do not go together.
        """
        found = [tensor.shape for tensor in self._pieces(name)]
        first, axis = found[0], self._axis(name)
        if any(_others(shape, axis) != _others(first, axis) for shape in found):
            raise ModelError(
                f"{self.name} is a mix of files: the pieces of {self._called(name)} have the "
                f"shapes {', '.join(map(str, found))}",
                remedy="download all weights files of one model",
            )
        if axis is None or axis >= len(first):
            return first
        return (*first[:axis], sum(shape[axis] for shape in found), *first[axis + 1 :])

    def dtype(self, name: str) -> mx.Dtype:
        """Return the type that a tensor, or its first piece, is stored in."""
        return DTYPES[self._pieces(name)[0].dtype]

    def read(self, name: str) -> mx.array:
        """Return a tensor put together from its pieces, not evaluated yet; once."""
        stored, axis = self._called(name), self._axis(name)
        found = [shard for shard in self.shards if stored in shard.tensors]
        if axis is None or len(found) == 1:
            return found[0].read(stored)
        return mx.concatenate([shard.read(stored) for shard in found], axis=axis)

    def check(self, wanted: Mapping[str, mx.array]) -> None:
        """Compare the files with a network's parameters, by name.

        Raises:
            ModelError: names the first tensor that is missing, unknown, or of another shape or
                kind.
        """
        unknown = sorted(stored for name, stored in self.stored.items() if name not in wanted)
        if unknown:
            raise ModelError(
                f"{self.name} has a tensor {unknown[0]}, which a llama network of the sizes in "
                f"its {self.settings} does not have",
                remedy=f"use the {self.settings} that was published with the weights; if it is, "
                "this is another network than llama's: use the model's Hugging Face or MLX folder",
            )
        for name, array in wanted.items():
            self._check_tensor(name, array)

    def _check_tensor(self, name: str, wanted: mx.array) -> None:
        found, needed = self.shape(name), tuple(wanted.shape)
        if found != needed:
            raise ModelError(
                f"{self.name} contradicts its {self.settings}: {self._called(name)} has the shape "
                f"{found}, and has to have {needed}{self._missing_files(name, found, needed)}",
                remedy=f"see whether a weights file is missing, or use the {self.settings} that "
                "was published with the weights",
            )
        if (self.dtype(name) == mx.uint32) != (wanted.dtype == mx.uint32):
            raise ModelError(
                f"{self.name} is wrong: {self._called(name)} is of the type {self.dtype(name)}",
                remedy="download the weights again",
            )

    def _missing_files(self, name: str, found: Shape, needed: Shape) -> str:
        """Return how many files there would be if only some of the pieces were here."""
        axis = self._axis(name)
        is_split = all(isinstance(shard, PthShard) for shard in self.shards)
        if not is_split or axis is None or _others(found, axis) != _others(needed, axis):
            return ""
        files, rest = divmod(len(self.shards) * needed[axis], max(1, found[axis]))
        if rest or files <= len(self.shards):
            return ""
        return f", as if there were {len(self.shards)} of {files} weights files"

    def _pieces(self, name: str) -> list[TensorInfo]:
        """Return a tensor in each file that has it or a piece of it, at least one."""
        stored = self._called(name)
        found = [shard.tensors[stored] for shard in self.shards if stored in shard.tensors]
        if not found:
            raise ModelError(
                f"{self.name} is incomplete: none of its files has the tensor {stored}",
                remedy="download the weights again, or use the "
                f"{self.settings} published with them",
            )
        return found

    def _axis(self, name: str) -> int | None:
        """Return the axis along which a tensor is split over the files.

        Llama 3 splits its embeddings by rows, Llama 1 and 2 by columns; their width tells.
        """
        if name == EMBEDDINGS and self._pieces(name)[0].shape[-1:] == (self.width,):
            return 0
        return split_axis(self._called(name))

    def _called(self, name: str) -> str:
        """Return what the files call a tensor, or would call it."""
        if name in self.stored:
            return self.stored[name]
        return publishers_name(name) if self.has_publishers_names else name


def join_shards(name: str, settings: str, width: int | None, shards: Sequence[Shard]) -> Release:
    """Take opened weights files together; see ``Release`` for the arguments."""
    names = {name for shard in shards for name in shard.tensors if not follows_from_settings(name)}
    is_translated = are_publishers_names(names)
    return Release(
        name=name,
        settings=settings,
        width=width,
        shards=shards,
        stored={mlx_name(name) if is_translated else name: name for name in names},
        has_publishers_names=is_translated,
    )


def _others(shape: Shape, axis: int | None) -> tuple[int, ...]:
    """Return the number of axes, and the sizes of all but ``axis``, which have to agree."""
    return (len(shape), *(size for place, size in enumerate(shape) if place != axis))
