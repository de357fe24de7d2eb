"""The model's card: ``README.md`` of its folder, from a template and from what was recorded.

The rule this module protects: no number in the card is typed. Training figures come from the run's
files, accuracy from an evaluation.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import Any

from daemon.errors import ModelError
from workers.files import write_text
from workers.shapes.captions import held_out_pairs, scene_indices
from workers.shapes.checker import Accuracy
from workers.shapes.checkpoint import read_progress
from workers.shapes.evaluation import Evaluation, drawn
from workers.shapes.trainer import OPTIONS
from workers.shapes.vocabulary import caption_vocabulary

CARD = "README.md"
_TEMPLATE = Path(__file__).with_name("card.md")
_DRAWN = 512


def write_card(folder: Path, evaluation: Evaluation, run: Path) -> None:
    """Write the card of the model in ``folder``, which the training in ``run`` made.

    Raises:
        ModelError: the training's folder lacks its files.
    """
    values = {
        "vocabulary": len(caption_vocabulary().tokens),
        "held_out": len(held_out_pairs()),
        "held_out_captions": len(scene_indices("held-out")),
        **_shares("model", Accuracy.of(evaluation.verdicts)),
        **_shares("drawn", Accuracy.of(drawn(_DRAWN, evaluation.seed).verdicts)),
        "pictures": len(evaluation.scenes),
        "seed": evaluation.seed,
        **asdict(evaluation.sampling),
        **_stage(run, "vae"),
        **_stage(run, "unet"),
    }
    text = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(values)
    write_text(folder / CARD, text)


def _shares(prefix: str, accuracy: Accuracy) -> dict[str, str]:
    names = ("colour", "relation", "shape", "background", "all")
    return {f"{prefix}_{name}": f"{getattr(accuracy, name):.1%}" for name in names}


def _stage(run: Path, stage: str) -> dict[str, Any]:
    """Return how a stage was run, as the template names it."""
    folder = run / stage
    progress = read_progress(folder)
    try:
        options = json.loads((folder / OPTIONS).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} does not say how it was trained: {error}", remedy="give the folder of a run"
        ) from None
    return {
        "device": options["device"],
        f"{stage}_seed": options["seed"],
        f"{stage}_pool": f"{options['pool']:,}",
        f"{stage}_batch": options["batch"],
        f"{stage}_rate": f"{options['rates']['learning_rate']:g}",
        f"{stage}_precision": options["precision"],
        f"{stage}_steps": f"{progress.step:,}",
        f"{stage}_minutes": f"{progress.seconds / 60:.1f}",
    }
