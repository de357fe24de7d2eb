"""The picture is drawn from whatever rows there are, without a warning."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from workers import plots

MEMORY = {"active_memory_bytes": 2.0**29, "peak_memory_bytes": 2.0**30, "cache_memory_bytes": 0.0}


def rows(count: int, *, fall: float = 3.0) -> list[dict[str, float]]:
    made = [
        {"iteration": step, "train_loss": 0.3 + fall * math.exp(-step / 20), **MEMORY}
        for step in range(1, count + 1)
    ]
    return [*made, {"iteration": count, "val_loss": 0.5, **MEMORY}] if count else []


@pytest.mark.parametrize("count", [0, 1, 5, 39, 500])
@pytest.mark.parametrize("fall", [0.5, 50.0])
def test_any_number_of_rows_makes_a_picture(tmp_path: Path, count: int, fall: float) -> None:
    path = tmp_path / "loss.png"
    plots.draw_training(path, rows(count, fall=fall), title="job 1: lora of $tiny_model^")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > image.height > 500
    assert [entry.name for entry in tmp_path.iterdir()] == ["loss.png"]


def test_a_test_loss_and_equal_values_are_drawn_too(tmp_path: Path) -> None:
    same = [{"iteration": 2, "train_loss": 1.0, "val_loss": 1.0, "test_loss": 1.0}]
    plots.draw_training(tmp_path / "loss.png", same, title="")
    assert (tmp_path / "loss.png").exists()


def test_the_smoothed_line_has_no_bias_at_its_start() -> None:
    assert plots.smoothed([4.0] * 5, span=9) == pytest.approx([4.0] * 5)
    assert plots.smoothed([1.0, 3.0], span=1) == pytest.approx([1.0, 3.0])


def test_drawing_imports_matplotlib_late_and_never_pyplot(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from workers import plots
assert "matplotlib" not in sys.modules
plots.draw_training(Path({str(tmp_path / "a.png")!r}), [], title="")
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
