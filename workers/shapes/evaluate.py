"""Measuring the ``shapes`` model on captions of pairs that its training never showed.

    python -m workers.shapes.evaluate MODEL --pictures 256 --out RESULTS --run RUN

writes ``evaluation.json`` and ``contact-sheet.png`` into RESULTS and, with the training's folder
RUN, the model's ``README.md`` with these numbers.

The rule this module protects: what the card says was measured on the files beside it; the JSON
names their fingerprint.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from daemon.errors import StudioqError
from workers.diffusion.load import DiffusionModel, load_diffusion_model
from workers.diffusion.samplers import SAMPLERS
from workers.files import write_json
from workers.shapes.captions import sample_held_out
from workers.shapes.card import write_card
from workers.shapes.checker import Verdict, check
from workers.shapes.evaluation import Evaluation
from workers.shapes.generate import Sampling, generate

EVALUATION, SHEET = "evaluation.json", "contact-sheet.png"

_COLUMNS = 16
_GAP = 2
_RIGHT, _WRONG = (255, 255, 255), (255, 0, 0)


def evaluate(model: DiffusionModel, count: int, seed: int, sampling: Sampling) -> Evaluation:
    """Make ``count`` pictures of held-out captions and judge them; picture k has seed + k."""
    scenes = sample_held_out(seed, count)
    seeds = [(seed + index) % 2**32 for index in range(count)]
    pictures = generate(model, [scene.caption for scene in scenes], seeds, sampling)
    return Evaluation(
        scenes=scenes,
        pictures=pictures,
        verdicts=check(pictures, scenes),
        sampling=sampling,
        seed=seed,
        fingerprint=model.fingerprint,
    )


def write_sheet(path: Path, pictures: NDArray[np.uint8], verdicts: Sequence[Verdict]) -> None:
    """Write all pictures on one page, a red frame around those that are not as asked."""
    count, height, width, _ = pictures.shape
    rows = -(-count // _COLUMNS)
    cell_height, cell_width = height + 2 * _GAP, width + 2 * _GAP
    page = np.full((rows * cell_height, _COLUMNS * cell_width, 3), 255, dtype=np.uint8)
    for index, (picture, verdict) in enumerate(zip(pictures, verdicts, strict=True)):
        row, column = divmod(index, _COLUMNS)
        top, left = row * cell_height, column * cell_width
        frame = page[top : top + cell_height, left : left + cell_width]
        frame[:] = _RIGHT if verdict.all else _WRONG
        frame[_GAP:-_GAP, _GAP:-_GAP] = picture
    Image.fromarray(page).save(path, optimize=True)


def main(arguments: list[str] | None = None) -> int:
    """Measure a model and write what was found; return the exit status."""
    given = _parser().parse_args(arguments)
    sampling = Sampling(cfg=given.cfg, steps=given.steps, sampler=given.sampler)
    try:
        model = load_diffusion_model(given.model)
        evaluation = evaluate(model, given.pictures, given.seed, sampling)
        given.out.mkdir(parents=True, exist_ok=True)
        write_json(given.out / EVALUATION, evaluation.to_dict())
        write_sheet(given.out / SHEET, evaluation.pictures, evaluation.verdicts)
        if given.run is not None:
            write_card(given.model, evaluation, given.run)
    except StudioqError as error:
        sys.stderr.write(f"{error.message}\n")
        return int(error.exit_code)
    sys.stdout.write(json.dumps(evaluation.to_dict()["accuracy"]) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m workers.shapes.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="folder in diffusers' layout")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cfg", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--sampler", choices=SAMPLERS, default="ddim")
    parser.add_argument("--run", type=Path, help="the training's folder: write the model's card")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
