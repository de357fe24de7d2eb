from __future__ import annotations

import gc
import itertools
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from daemon.errors import ModelError, OutOfMemoryError
from workers.memory import free_unused
from workers.models import ModelCache, own_tree

Make = Callable[..., Path]
LORA = {"rank": 4, "scale": 20.0, "dropout": 0.0}


@pytest.fixture
def clock() -> Iterator[Callable[[], float]]:
    ticks = itertools.count()
    yield lambda: float(next(ticks))


@pytest.fixture
def folders(make_tiny_model: Make, tmp_path: Path) -> list[Path]:
    return [make_tiny_model(tmp_path / name, seed=seed) for seed, name in enumerate("abc")]


def names(cache: ModelCache) -> list[str]:
    return [path.name for path in cache.paths()]


def weights(model: object) -> dict[str, bytes]:
    arrays = dict(tree_flatten(model.parameters()))  # type: ignore[attr-defined]
    return {name: bytes(memoryview(array)) for name, array in arrays.items()}


def test_a_model_is_loaded_once(cache: ModelCache, tiny_model: Path) -> None:
    assert not cache.is_loaded(tiny_model)
    assert cache.load_seconds(tiny_model) > 0
    first = cache.language(tiny_model)
    assert cache.language(tiny_model) is first
    assert cache.load_seconds(tiny_model) == 0
    assert names(cache) == ["tiny"]


def test_the_least_recently_used_goes_first(
    clock: Callable[[], float], folders: list[Path]
) -> None:
    one = ModelCache(2**40, clock).language(folders[0]).bytes
    cache = ModelCache(2 * one, clock)
    cache.language(folders[0])
    cache.language(folders[1])
    cache.language(folders[0])
    cache.language(folders[2])
    assert names(cache) == ["a", "c"]


def test_a_model_in_use_stays(clock: Callable[[], float], folders: list[Path]) -> None:
    cache = ModelCache(1, clock)
    with cache.borrow(folders[0]):
        cache.language(folders[1])
        cache.language(folders[2])
        assert names(cache) == ["a", "c"]
    cache.language(folders[1])
    assert names(cache) == ["b"]


def test_room_is_made_before_the_next_is_loaded(
    clock: Callable[[], float], folders: list[Path]
) -> None:
    free_unused()
    before = mx.get_active_memory()
    cache = ModelCache(1, clock)
    size = cache.language(folders[0]).bytes
    mx.reset_peak_memory()
    cache.language(folders[1])
    assert mx.get_peak_memory() - before < 2 * size
    assert cache.clear() - before < size


def test_an_evicted_model_is_really_gone(cache: ModelCache, tiny_model: Path) -> None:
    with cache.borrow(tiny_model) as model:
        tree = weakref.ref(model.model)
        kept = weakref.ref(cache.language(tiny_model).model)
    del model
    cache.clear()
    gc.collect()
    assert tree() is None
    assert kept() is None


def test_a_model_beyond_the_device_is_refused_before_loading(
    clock: Callable[[], float], tiny_model: Path
) -> None:
    cache = ModelCache(10**9, clock, limit_bytes=1000)
    with pytest.raises(OutOfMemoryError, match="tiny needs"):
        cache.language(tiny_model)


def test_a_model_that_cannot_be_loaded_leaves_nothing(
    cache: ModelCache, tmp_path: Path, tiny_model: Path
) -> None:
    with pytest.raises(ModelError):
        cache.language(tmp_path)
    assert cache.paths() == []
    cache.language(tiny_model)


def test_a_replaced_model_is_loaded_again(
    cache: ModelCache, make_tiny_model: Make, tmp_path: Path
) -> None:
    folder = make_tiny_model(tmp_path / "model", seed=1)
    first = cache.language(folder)
    shutil.rmtree(folder)
    make_tiny_model(folder, seed=2)
    second = cache.language(folder)
    assert second.fingerprint != first.fingerprint
    assert len(cache.paths()) == 1


def test_borrowing_copies_no_weights(cache: ModelCache, tiny_model: Path) -> None:
    cache.language(tiny_model)
    free_unused()
    before = mx.get_active_memory()
    with cache.borrow(tiny_model) as model:
        mx.eval(model.model.parameters())
        assert mx.get_active_memory() == before


def test_nothing_a_borrower_does_reaches_the_base(cache: ModelCache, tiny_model: Path) -> None:
    base = cache.language(tiny_model)
    before, modules = weights(base.model), str(base.model)
    with cache.borrow(tiny_model) as model:
        model.model.freeze()
        linear_to_lora_layers(model.model, 2, LORA)
        for layer in model.model.layers:
            layer.self_attn.q_proj.lora_b += 1
            layer.mlp.up_proj.linear.weight += 1
            layer.input_layernorm.weight = mx.zeros(64)
        model.model.train()
        mx.eval(model.model.parameters())
    assert weights(base.model) == before
    assert str(base.model) == modules
    assert dict(tree_flatten(base.model.trainable_parameters())).keys() == before.keys()
    assert not base.model.training


def test_two_borrowers_do_not_disturb_each_other(cache: ModelCache, tiny_model: Path) -> None:
    tokens = mx.array([[3, 4, 5]])
    plain = cache.language(tiny_model).model(tokens)
    with cache.borrow(tiny_model) as first, cache.borrow(tiny_model) as second:
        linear_to_lora_layers(first.model, 2, LORA)
        first.model.layers[0].self_attn.q_proj.lora_b = mx.ones((4, 64))
        assert mx.array_equal(second.model(tokens), plain)
        assert not mx.array_equal(first.model(tokens), plain)
        second.model.layers[1].mlp.down_proj.weight *= 2
        assert mx.array_equal(cache.language(tiny_model).model(tokens), plain)


def test_tied_modules_stay_tied() -> None:
    from mlx import nn

    class Tied(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2)
            self.two = [self.one]

    copied = own_tree(Tied())
    assert copied.one is copied.two[0]
