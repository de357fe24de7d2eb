"""The weights files of a converted model, each written layer by layer.

The rule this module protects: of a model's weights no more is in memory than one layer as it is
stored and a few rows of what it becomes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from workers.failures import disk_errors
from workers.language.conversion.plan import Plan
from workers.language.conversion.safetensors_file import SafetensorsFile, TensorSpec
from workers.language.conversion.units import Arrays, Unit
from workers.language.source import ModelSource

# The most that a weights file holds, as mlx-lm and the Hugging Face hub have it.
SHARD_BYTES = 5 << 30

# Bytes of a layer that are changed at once.
_SLICE_BYTES = 32 << 20


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One weights file: the places of its layers in the plan, and its tensors by name."""

    name: str
    units: range
    tensors: Mapping[str, TensorSpec]


def split(plan: Plan, most: int) -> tuple[Shard, ...]:
    """Divide a plan's layers over files of at most ``most`` bytes; a layer is never divided."""
    ranges = list(_ranges([sum(s.bytes for s in specs.values()) for specs in plan.outputs], most))
    return tuple(
        Shard(name=_name(number, len(ranges)), units=units, tensors=plan.tensors_of(units))
        for number, units in enumerate(ranges, start=1)
    )


def _ranges(sizes: list[int], most: int) -> Iterator[range]:
    begin, held = 0, 0
    for place, size in enumerate(sizes):
        if held and held + size > most:
            yield range(begin, place)
            begin, held = place, 0
        held += size
    yield range(begin, len(sizes))


def _name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def write_shard(source: ModelSource, plan: Plan, shard: Shard, folder: Path) -> Iterator[int]:
    """Write one weights file; yield the bytes of each piece once it is written.

    The file is synced, and whole, when the generator ends.

    Raises:
        DiskFullError: the disk is full.
        RuntimeError: the source cannot be read, or memory ends.
    """
    path = folder / shard.name
    with disk_errors(path), closing(SafetensorsFile(path, shard.tensors)) as file:
        for place in shard.units:
            yield from _write_unit(file, plan.units[place], source)
        file.finish()


def _write_unit(file: SafetensorsFile, unit: Unit, source: ModelSource) -> Iterator[int]:
    arrays = {leaf: source.tensors[unit.name(leaf)].read() for leaf in unit.leaves}
    mx.eval(arrays)
    for first, changed in _changed(unit, arrays):
        mx.eval(changed)
        for leaf, rows in changed.items():
            file.write(unit.name(leaf), rows, first)
        yield sum(rows.nbytes for rows in changed.values())
    del arrays
    mx.clear_cache()


def _changed(unit: Unit, arrays: Arrays) -> Iterator[tuple[int, Arrays]]:
    """Yield a layer as it is to be written, in one piece or some rows at a time from a row on."""
    length = _rows(arrays)
    if unit.unchanged or not unit.by_rows or length is None:
        yield 0, unit.change(arrays)
        return
    step = max(1, _SLICE_BYTES * length // max(1, sum(array.nbytes for array in arrays.values())))
    for first in range(0, length, step):
        yield (
            first,
            unit.change({leaf: array[first : first + step] for leaf, array in arrays.items()}),
        )


def _rows(arrays: Arrays) -> int | None:
    """Return the length of the first axis if all arrays have the same, at least one."""
    lengths = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    length = lengths.pop()
    return None if lengths or not length else int(length)
