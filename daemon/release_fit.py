"""Whether a publisher's weights are those that their ``params.json`` tells of, by a few headers.

The rule this module protects: it says no only where the engine would. The engine compares every
tensor; this finds the two common faults before a job is queued: a consolidated file that is
missing at the end, and the params.json of another model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daemon.errors import ModelError
from daemon.safetensors_header import WeightsHeader

_NORM, _QUERIES = "norm.weight", "layers.0.attention.wq.weight"


def check_release(name: str, params: Mapping[str, Any], headers: Sequence[WeightsHeader]) -> None:
    """Compare the width and the rows of the first queries, which Meta splits over the files.

    Raises:
        ModelError: one of them contradicts ``params.json``.
    """
    dim, heads = params.get("dim"), params.get("n_heads")
    if type(dim) is not int or type(heads) is not int or dim < 1 or heads < 1:
        return  # what is wrong with params.json itself the engine says
    norms = _shapes(headers, _NORM)
    if norms and norms[0] != (dim,):
        raise ModelError(
            f"{name} contradicts its params.json: {_NORM} has the shape {norms[0]}, and dim is "
            f"{dim}",
            remedy="use the params.json that was published with the weights",
        )
    size = params.get("head_dim") or dim // heads
    queries = [shape[0] for shape in _shapes(headers, _QUERIES) if len(shape) == 2]
    if type(size) is int and queries and sum(queries) != heads * size:
        raise ModelError(
            f"{name} is incomplete, or has another model's params.json: {_QUERIES} has "
            f"{sum(queries)} rows in {len(headers)} of its files together, and has to have "
            f"{heads * size}",
            remedy="download the consolidated files that are missing",
        )


def _shapes(headers: Sequence[WeightsHeader], tensor: str) -> list[tuple[int, ...]]:
    """Return the shape that a tensor has in each of the files that have it."""
    return [info.shape for header in headers for info in header.tensors if info.name == tensor]
