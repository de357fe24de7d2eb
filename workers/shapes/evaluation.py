"""The result of measuring the model: pictures, verdicts, and the numbers that follow.

The rule this module protects: a share stands beside what it was measured on: the model's
fingerprint, the seeds, and the way the pictures were made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.shapes.captions import Scene, sample_held_out
from workers.shapes.checker import Accuracy, Verdict, check
from workers.shapes.drawing import draw
from workers.shapes.generate import Sampling


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was asked for, what was made, and how it was judged."""

    scenes: list[Scene]
    pictures: NDArray[np.uint8]
    verdicts: list[Verdict]
    sampling: Sampling
    seed: int
    fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, with every caption that was not met."""
        return {
            "model_fingerprint": self.fingerprint,
            "captions": "held-out pairs",
            "seed": self.seed,
            **asdict(self.sampling),
            "accuracy": _rounded(Accuracy.of(self.verdicts)),
            "by_relation": self._by(lambda scene: str(scene.relation)),
            "by_background": self._by(lambda scene: scene.background),
            "failures": [
                {"index": index, "caption": scene.caption, **asdict(verdict)}
                for index, (scene, verdict) in enumerate(
                    zip(self.scenes, self.verdicts, strict=True)
                )
                if not verdict.all
            ],
        }

    def _by(self, key: Callable[[Scene], str]) -> dict[str, dict[str, float]]:
        """Return the accuracy of each group of scenes."""
        groups: dict[str, list[Verdict]] = {}
        for scene, verdict in zip(self.scenes, self.verdicts, strict=True):
            groups.setdefault(key(scene), []).append(verdict)
        return {name: _rounded(Accuracy.of(group)) for name, group in sorted(groups.items())}


def drawn(count: int, seed: int) -> Evaluation:
    """Judge drawn pictures of held-out captions: what the checker says of right ones."""
    scenes = sample_held_out(seed, count)
    pictures = draw(scenes, np.random.Generator(np.random.PCG64(seed)))
    return Evaluation(
        scenes=scenes,
        pictures=pictures,
        verdicts=check(pictures, scenes),
        sampling=Sampling(cfg=0, steps=0, sampler="drawn"),
        seed=seed,
        fingerprint="drawn",
    )


def _rounded(accuracy: Accuracy) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(accuracy).items()}
