"""The loop of a stage of ``train_torch``: AdamW, clipping, a moving average, rates by time.

The rule this module protects: on a card a step is one replayed CUDA graph. Networks this small are
bound by the launching of their thousand kernels, and a graph launches once. Random choices are
drawn inside it, so two runs on one card and one version of PyTorch differ by the order of sums.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from workers.shapes.optimizer import BETAS, EPS
from workers.shapes.trainer import say

_WARMUP, _FINAL_SHARE, _DECAY, _CLIP = 200, 0.01, 0.01, 1.0
_REPORT, _WARM_STEPS, _SAVE_SHARE = 200, 10, 0.25

Loss = Callable[[], torch.Tensor]


class Stage:
    """Trains what of a network wants gradients, until its minutes are over."""

    def __init__(self, network: nn.Module, loss: Loss, rate: float, average: float) -> None:
        self._parameters = [item for item in network.parameters() if item.requires_grad]
        self._names = [name for name, item in network.named_parameters() if item.requires_grad]
        self._averages = [item.detach().clone() for item in self._parameters]
        self._loss, self._rate, self._average = loss, rate, average
        self._cuda = self._parameters[0].is_cuda
        device = self._parameters[0].device
        self._keep = torch.zeros((), device=device)
        self._last = torch.zeros((), device=device)
        decayed = [item for item in self._parameters if item.ndim > 1]
        other = [item for item in self._parameters if item.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": _DECAY}, {"params": other, "weight_decay": 0.0}],
            lr=torch.tensor(rate, device=device),
            betas=BETAS,
            eps=EPS,
            capturable=self._cuda,
            foreach=self._cuda,
        )

    def run(self, seconds: float, save: Callable[[], None]) -> int:
        """Train for so long, saving now and then and at the end; return the number of steps.

        The first steps, in which kernels are compiled and chosen, are not counted in the time.
        """
        step, saves = 0, 1
        while step < _WARM_STEPS:
            self._set_rates(step, 0.0)
            self._advance()
            step += 1
        advance: Callable[[], Any] = self._captured() if self._cuda else self._advance
        begun = time.monotonic()
        while (spent := (time.monotonic() - begun) / seconds) < 1:
            self._set_rates(step, spent)
            advance()
            step += 1
            if step % _REPORT == 0:
                speed = (step - _WARM_STEPS) / (time.monotonic() - begun)
                say(f"step {step} loss {float(self._last):.5f} {speed:.1f}/s")
            if spent > saves * _SAVE_SHARE:
                save()
                saves += 1
        save()
        say(f"ended after step {step}, loss {float(self._last):.5f}")
        return step

    def averages(self) -> dict[str, torch.Tensor]:
        """Return the moving averages of the weights by name, on the host."""
        pairs = zip(self._names, self._averages, strict=True)
        return {name: item.float().cpu().contiguous() for name, item in pairs}

    def _set_rates(self, step: int, spent: float) -> None:
        cosine = 0.5 * (1 + math.cos(math.pi * spent))
        rate = self._rate * (_FINAL_SHARE + (1 - _FINAL_SHARE) * cosine)
        for group in self._optimizer.param_groups:
            group["lr"].fill_(rate * min(1.0, (step + 1) / _WARMUP))
        self._keep.fill_(1 - min(self._average, (2 + step) / (11 + step)))

    def _advance(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss()
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, _CLIP, foreach=True)
        self._optimizer.step()
        changes = torch._foreach_sub([item.detach() for item in self._parameters], self._averages)
        torch._foreach_mul_(changes, self._keep)
        torch._foreach_add_(self._averages, changes)
        self._last.copy_(loss.detach())

    def _captured(self) -> Callable[[], Any]:
        """Return a step as a graph; it is captured beside the stream of the steps before it."""
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._advance()
        except RuntimeError as error:
            say(f"the step cannot be captured and runs as it is: {error}")
            return self._advance
        return graph.replay
