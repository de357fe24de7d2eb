from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daemon.bench.plot import draw
from daemon.bench.record import Record, Result
from tests.unit.bench.records import decoding, figure, pictures, record, training

WHOLE = record(training(99.0, 101.0), decoding(11.0), pictures(b1=2.0, b2=1.5, b4=1.4))
FAILED = record(Result(table="train", model="small", failures=("job 1 failed",)))
RIVAL = replace(
    WHOLE.results[2],
    figures=(*WHOLE.results[2].figures, figure("torch.step_pictures_per_sec@1", 5.0)),
)


@pytest.mark.parametrize("run", [WHOLE, FAILED, record(RIVAL), record()])
def test_every_run_has_a_picture(run: Record, tmp_path: Path) -> None:
    draw(tmp_path / "bench.png", run)
    with Image.open(tmp_path / "bench.png") as image:
        assert image.size == (1950, 690)
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    blue = (pixels == (0x00, 0x72, 0xB2)).all(axis=1).sum()
    assert bool(blue > 500) is any(result.figures for result in run.results)
