"""From prompts to what the UNet listens to.

The rule this module protects: a prompt of any length is heard to its end. It is encoded window by
window, and the windows stand one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from workers.diffusion.load import DiffusionModel
from workers.diffusion.unet import Added


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The encoded prompts: with guidance two rows, negative first, else one.

    ``context``: (rows, length, width). ``pooled``: (rows, width), for SDXL.
    """

    context: mx.array
    pooled: mx.array | None

    @property
    def guided(self) -> bool:
        """Whether there is a negative side to guide away from."""
        return bool(self.context.shape[0] == 2)

    def added(self, size: tuple[int, int]) -> Added | None:
        """Return SDXL's further conditions for a picture of ``size`` (height, width), uncropped."""
        if self.pooled is None:
            return None
        height, width = size
        row = mx.array([[height, width, 0, 0, height, width]], dtype=mx.float32)
        return Added(pooled=self.pooled, sizes=mx.repeat(row, self.pooled.shape[0], axis=0))


def encode_prompts(
    model: DiffusionModel, prompt: str, negative: str | None, *, guided: bool
) -> Conditions:
    """Encode the prompt and, if ``guided``, what to guide away from.

    Without a negative prompt that is an empty text; for a model that was trained so, zeros. An
    empty negative prompt is a text.
    """
    texts = [negative or "", prompt] if guided else [prompt]
    count = max(_windows_needed(model, text) for text in texts)
    encoded = [_encode(model, text, count) for text in texts]
    context = mx.concatenate([row for row, _ in encoded])
    pooled = mx.concatenate([row for _, row in encoded])
    if guided and negative is None and model.zero_empty_negative:
        keep = mx.array([0, 1])
        context = context * keep[:, None, None].astype(context.dtype)
        pooled = pooled * keep[:, None].astype(pooled.dtype)
    sdxl = model.family == "sdxl"
    return Conditions(context=context, pooled=pooled if sdxl else None)


def _windows_needed(model: DiffusionModel, text: str) -> int:
    return max(
        len(tokenizer.windows(text, encoder.config.positions))
        for tokenizer, encoder in zip(model.tokenizers, model.text_encoders, strict=True)
    )


def _encode(model: DiffusionModel, text: str, count: int) -> tuple[mx.array, mx.array]:
    """Return a text's ``count`` windows, (1, length, width), and its pooled first window.

    SDXL takes the penultimate layer of both encoders, side by side (arXiv:2307.01952, section
    2.1); the others take their one encoder's last. The last encoder's first window is pooled.
    """
    parts = []
    for tokenizer, encoder in zip(model.tokenizers, model.text_encoders, strict=True):
        windows = tokenizer.windows(text, encoder.config.positions, count)
        output = encoder(mx.array(windows))
        hidden = output.penultimate if model.family == "sdxl" else output.last
        parts.append(hidden.reshape(1, -1, hidden.shape[-1]))
        pooled = output.pooled[:1]
    return mx.concatenate(parts, axis=-1), pooled
