"""PyTorch diffusers as a contender: its own UNet of the same configuration, and its own loop.

The rule this module protects: the rival gets what its users would give it: float16 (or the type
that is measured), channels-last memory, PyTorch's fused attention, both guidance rows in one batch,
no gradients, and a loop that waits for the device only at its end. Weights are random.

PyTorch and diffusers are looked for when they are asked for; nothing else here needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

_CFG = 7.5
_WARM_STEPS = 3
_TEXT_LENGTH = 77


def missing_reason() -> str | None:
    """Return why PyTorch's diffusers cannot be measured here, None if they can."""
    for name in ("torch", "diffusers"):
        try:
            import_module(name)
        except Exception as error:  # noqa: BLE001 - a broken installation raises anything
            return f"{name} cannot be imported ({type(error).__name__}: {error})"
    return None


class TorchLoop:
    """A UNet on PyTorch's device, shared by the contenders below."""

    def __init__(
        self, config: Mapping[str, Any], *, latents: tuple[int, int], dtype: str, steps: int
    ) -> None:
        """``latents``: height and width; ``dtype``: the name of PyTorch's type."""
        self.torch = import_module("torch")
        diffusers = import_module("diffusers")
        diffusers.utils.logging.set_verbosity_error()
        self.steps = steps
        self.device = "cuda" if self.torch.cuda.is_available() else "cpu"
        self.dtype = getattr(self.torch, dtype)
        self.latents = latents
        with self.torch.device(self.device):
            unet = diffusers.UNet2DConditionModel.from_config(dict(config))
        self.unet = unet.to(self.dtype).to(memory_format=self.torch.channels_last).eval()
        self.scheduler = diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
        )
        self._added = self._sdxl_conditions() if config.get("addition_embed_type") else {}
        self._text = self._normal(2, _TEXT_LENGTH, self.unet.config.cross_attention_dim)

    def _normal(self, *shape: int) -> Any:
        return self.torch.randn(*shape, device=self.device, dtype=self.dtype)

    def _sdxl_conditions(self) -> dict[str, Any]:
        config = self.unet.config
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        side = 8.0 * self.latents[0]
        sizes = self.torch.tensor([[side, side, 0, 0, side, side]] * 2, device=self.device)
        return {"text_embeds": self._normal(2, pooled), "time_ids": sizes.to(self.dtype)}

    def denoise(self, network: Any, batch: int, steps: int) -> None:
        """Do the first ``steps`` steps of a batch with guidance, as diffusers' pipeline does."""
        torch = self.torch
        with torch.no_grad():
            text = self._text.repeat_interleave(batch, 0)
            added = {name: rows.repeat_interleave(batch, 0) for name, rows in self._added.items()}
            latents = self._start(batch)
            self.scheduler.set_timesteps(self.steps)
            times = self.scheduler.timesteps.to(self.device)
            for index, time in enumerate(self.scheduler.timesteps.tolist()[:steps]):
                seen = torch.cat([latents] * 2)
                output = network(
                    seen,
                    times[index],
                    encoder_hidden_states=text,
                    added_cond_kwargs=added or None,
                    return_dict=False,
                )[0]
                negative, positive = output.chunk(2)
                guided = negative + _CFG * (positive - negative)
                # A number and not a tensor of the device, which the scheduler would wait for.
                latents = self.scheduler.step(guided, time, latents, return_dict=False)[0]
        self.synchronize()

    def _start(self, batch: int) -> Any:
        drawn = self._normal(batch, self.unet.config.in_channels, *self.latents)
        return drawn.to(memory_format=self.torch.channels_last)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            self.torch.cuda.synchronize()


class EagerDenoising:
    """diffusers as it is."""

    def __init__(self, loop: TorchLoop) -> None:
        self.name = "diffusers eager"
        self._loop = loop
        self._network: Any = loop.unet

    def prepare(self, batch: int) -> None:
        """Do the first steps of a batch."""
        if self._loop.device == "cuda":
            self._loop.torch.cuda.reset_peak_memory_stats()
        self.few(batch, _WARM_STEPS)

    def run(self, batch: int) -> None:
        """Denoise a batch."""
        self.few(batch, self._loop.steps)

    def few(self, batch: int, steps: int) -> None:
        """Do the first ``steps`` steps of a batch."""
        self._loop.denoise(self._network, batch, steps)

    def peak_bytes(self) -> int | None:
        """Return PyTorch's peak on the card; both contenders share its counter."""
        if self._loop.device != "cuda":
            return None
        return int(self._loop.torch.cuda.max_memory_allocated())

    def release(self) -> None:
        """Give back what PyTorch keeps for reuse."""
        if self._loop.device == "cuda":
            self._loop.torch.cuda.empty_cache()


class CompiledDenoising(EagerDenoising):
    """diffusers with its UNet in ``torch.compile``, compiled anew for each batch size."""

    def __init__(self, loop: TorchLoop, mode: str) -> None:
        super().__init__(loop)
        self.name = "torch.compile" if mode == "default" else f"torch.compile {mode}"
        self._mode = mode

    def prepare(self, batch: int) -> None:
        """Compile, and do the first steps of a batch."""
        torch = self._loop.torch
        torch.compiler.reset()
        self._network = torch.compile(
            self._loop.unet, mode=self._mode, fullgraph=True, dynamic=False
        )
        super().prepare(batch)

    def release(self) -> None:
        """Drop what was compiled."""
        self._network = self._loop.unet
        self._loop.torch.compiler.reset()
        super().release()
