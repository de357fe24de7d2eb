from __future__ import annotations

import mlx.core as mx
import pytest

from daemon.errors import OutOfMemoryError
from workers import memory
from workers.failures import is_out_of_memory, memory_errors


def test_the_budget_is_a_part_of_what_the_device_has() -> None:
    assert 0 < memory.configure() < memory.memory_limit()


def test_memory_in_use_is_counted_and_given_back() -> None:
    memory.free_unused()
    before = memory.memory_use().active
    array = mx.zeros((256, 1024))
    mx.eval(array)
    assert memory.memory_use().active - before == 2**20
    del array
    assert memory.free_unused() == before
    assert memory.memory_use().cache == 0


def test_the_device_has_a_name_and_a_kind() -> None:
    assert memory.device_name()
    assert memory.device_kind() in {"cpu", "metal", "cuda"}


def test_the_random_state_is_put_back_exactly() -> None:
    mx.random.seed((123 << 32) | 456)
    mx.eval(mx.random.uniform(shape=(3,)))
    state = mx.random.state[0].tolist()  # type: ignore[index]
    with memory.preserved_random_state():
        mx.eval(mx.random.normal((10,)))
    assert mx.random.state[0].tolist() == state  # type: ignore[index]


def test_an_allocators_refusal_says_what_was_being_done() -> None:
    with (
        pytest.raises(OutOfMemoryError, match="out of memory while filling: "),
        memory_errors("filling"),
    ):
        raise RuntimeError("[malloc] Unable to allocate 12 bytes.\nmore")


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("filling"):
        raise RuntimeError("[matmul] shapes do not fit")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("[malloc] Unable to allocate 12 bytes."), True),
        (RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory (8)"), True),
        (RuntimeError("[metal::malloc] Attempting to allocate 9 bytes which is greater"), True),
        (RuntimeError("cudaMallocAsync failed: out of memory"), True),
        (RuntimeError("[matmul] shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_refusals_of_allocators_are_known(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
