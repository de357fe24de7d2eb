from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from safetensors import safe_open

from workers.language.conversion.safetensors_file import SafetensorsFile, TensorSpec, specs_of

ARRAYS = {
    "words": mx.arange(24, dtype=mx.uint32).reshape(4, 6),
    "brain": mx.random.normal((7, 3), key=mx.random.key(1)).astype(mx.bfloat16),
    "turned": mx.random.normal((5, 9), key=mx.random.key(2)).T,
    "one": mx.array(2.5, dtype=mx.float16),
    "none": mx.zeros((0, 4)),
}


def write(path: Path, arrays: dict[str, mx.array]) -> None:
    file = SafetensorsFile(path, specs_of(arrays))
    for name, array in arrays.items():
        file.write(name, array)
    file.finish()


def test_other_readers_find_every_tensor_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", ARRAYS)
    loaded: Any = mx.load(str(tmp_path / "a.safetensors"))
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        assert mx.array_equal(loaded[name], array).item()
    with safe_open(str(tmp_path / "a.safetensors"), "np") as opened:
        assert opened.metadata() == {"format": "mlx"}
        assert opened.get_slice("brain").get_shape() == [7, 3]


def test_the_bytes_are_those_that_mlx_writes(tmp_path: Path) -> None:
    arrays = {"x": ARRAYS["words"]}
    write(tmp_path / "ours.safetensors", arrays)
    mx.save_safetensors(str(tmp_path / "mlx.safetensors"), arrays, {"format": "mlx"})
    with (
        safe_open(str(tmp_path / "ours.safetensors"), "np") as ours,
        safe_open(str(tmp_path / "mlx.safetensors"), "np") as theirs,
    ):
        assert ours.get_tensor("x").tobytes() == theirs.get_tensor("x").tobytes()


def test_rows_may_come_in_any_order(tmp_path: Path) -> None:
    array = ARRAYS["words"]
    file = SafetensorsFile(tmp_path / "a.safetensors", specs_of({"x": array}))
    for first in (3, 0, 2, 1):
        file.write("x", array[first : first + 1], first)
    file.finish()
    loaded: Any = mx.load(str(tmp_path / "a.safetensors"))
    assert mx.array_equal(loaded["x"], array).item()


def test_what_was_not_laid_out_is_not_written(tmp_path: Path) -> None:
    file = SafetensorsFile(
        tmp_path / "a.safetensors", {"x": TensorSpec(shape=(2, 3), dtype=mx.float16)}
    )
    for wrong in (mx.zeros((2, 3)), mx.zeros((2, 4), dtype=mx.float16)):
        with pytest.raises(ValueError, match="x was laid out as"):
            file.write("x", wrong)
    file.close()
