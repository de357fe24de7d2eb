"""What a model needs is compared with what the engine may use."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.model_facts import ModelFacts
from daemon.model_memory import Memory, find_memory, machine_memory, on_cpu
from daemon.weights_count import WeightsCount

FACTS = ModelFacts(count=WeightsCount(parameters=1000, bits=4, mixed=False, stored_bytes=600))


def memory(limit: int | None = None, *, float32: bool = False) -> Memory:
    return Memory(limit=limit, source="engine", float32=float32, share=0.75)


@pytest.mark.parametrize(
    ("format_", "float32", "needed"),
    [("mlx", False, 600), ("mlx", True, 4000), ("diffusers", False, 2000), ("gguf", True, 4000)],
)
def test_what_weights_take(format_: str, float32: bool, needed: int) -> None:
    assert memory(float32=float32).needed(format_, FACTS) == needed
    assert memory(float32=float32).needed(format_, ModelFacts()) is None


@pytest.mark.parametrize(
    ("needed", "limit", "fits"),
    [(75, 100, "yes"), (76, 100, "tight"), (101, 100, "no"), (1, None, None), (None, 1, None)],
)
def test_whether_it_fits(needed: int | None, limit: int | None, fits: str | None) -> None:
    assert memory(limit).fits(needed) == fits


def test_the_limit_is_the_engines_else_the_machines() -> None:
    told = find_memory({"memory": {"limit": 100}}, share=0.5)
    assert (told.limit, told.source, told.share, told.float32) == (100, "engine", 0.5, on_cpu())
    silent: list[dict[str, Any]] = [{}, {"memory": {}}, {"memory": {"limit": None}}]
    for engine in silent:
        found = find_memory(engine, share=0.5)
        assert found.source == "machine"
        assert found.limit in {None, machine_memory()}
