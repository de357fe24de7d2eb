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

CARD, STAGES = "README.md", "stages.json"
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
        "stages": _rows(run),
    }
    text = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(values)
    write_text(folder / CARD, text)


def _shares(prefix: str, accuracy: Accuracy) -> dict[str, str]:
    names = ("colour", "relation", "shape", "background", "all")
    return {f"{prefix}_{name}": f"{getattr(accuracy, name):.1%}" for name in names}


def _rows(run: Path) -> str:
    """Return the table's rows, one for each stage in the order in which they were done, and notes.

    Raises:
        ModelError: the folder does not say how its stages were run.
    """
    stages = read_stages(run) or [_stage(run, name) for name in ("vae", "unet")]
    rows = "\n".join(
        f"| {stage['stage']} | {stage['networks']} | {stage['device']} | {stage['pictures']:,} "
        f"| {stage['batch']} | {stage['steps']:,} | {stage['minutes']:.1f} | {stage['rate']:g} "
        f"| {stage['precision']} |"
        for stage in stages
    )
    notes = [str(stage["note"]) for stage in stages if "note" in stage]
    return "\n\n".join([rows, *notes])


def read_stages(run: Path) -> list[dict[str, Any]]:
    """Return what ``record_stage`` wrote into a run's folder, nothing if it wrote nothing."""
    file = run / STAGES
    found: list[dict[str, Any]] = json.loads(file.read_bytes()) if file.is_file() else []
    return found


def record_stage(run: Path, stage: dict[str, Any]) -> None:
    """Add a stage to the run's record: the keys are the card's columns, and perhaps a ``note``."""
    write_text(run / STAGES, json.dumps([*read_stages(run), stage], indent=2) + "\n")


def _stage(run: Path, stage: str) -> dict[str, Any]:
    """Return how a stage of the training in MLX was run."""
    folder = run / stage
    progress = read_progress(folder)
    try:
        options = json.loads((folder / OPTIONS).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} does not say how it was trained: {error}", remedy="give the folder of a run"
        ) from None
    return {
        "stage": stage,
        "networks": "MLX, studioq's own",
        "device": options["device"],
        "pictures": options["pool"],
        "batch": options["batch"],
        "rate": options["rates"]["learning_rate"],
        "precision": options["precision"],
        "steps": progress.step,
        "minutes": progress.seconds / 60,
    }
