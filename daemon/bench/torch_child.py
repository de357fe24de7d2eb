"""PyTorch's diffusers on the same model, as a program of its own: ``python -P torch_child.py JOB``.

The rule this module protects: the rival does the same work (model, prompt, seed, steps, guidance,
size, sampler) with what its users would give it: float16 on a GPU, no safety checker, no progress
bar. It counts what studioq's jobs count: text, steps and decoding, and not the load.

JOB is JSON. Answers one line of JSON a batch size on stdout. Standard library, torch and diffusers;
nothing of studioq, so that any environment's Python can run it.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from typing import Any

_WARM_STEPS = 2


def main(words: list[str]) -> int:
    """Measure each batch size of the job in ``words``; stop where memory ends."""
    job: dict[str, Any] = json.loads(words[0])
    pipeline, facts = _load(job["path"])
    for batch in job["batches"]:
        try:
            seconds, steps = _measure(pipeline, job, batch)
        except (RuntimeError, MemoryError) as error:
            _say({"batch": batch, "error": f"{type(error).__name__}: {str(error)[:200]}"})
            return 1
        _say({"batch": batch, "seconds": seconds, "denoising": steps, **facts})
    return 0


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _load(path: str) -> tuple[Any, dict[str, Any]]:
    """Load the pipeline of a folder onto PyTorch's best device."""
    torch, diffusers = import_module("torch"), import_module("diffusers")
    diffusers.utils.logging.set_verbosity_error()
    device = _device(torch)
    dtype = torch.float32 if device == "cpu" else torch.float16
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        path, torch_dtype=dtype, use_safetensors=True, local_files_only=True
    )
    if hasattr(pipeline, "safety_checker"):
        pipeline.safety_checker = None
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    versions = {"torch": str(torch.__version__), "diffusers": str(diffusers.__version__)}
    facts = {"device": device, "dtype": str(dtype).rpartition(".")[2], "versions": versions}
    return pipeline.to(device), facts


def _device(torch: Any) -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _measure(pipeline: Any, job: dict[str, Any], batch: int) -> tuple[list[float], list[float]]:
    """Return seconds of whole runs and of their steps alone, one for each repeat."""
    _run(pipeline, job, batch, _WARM_STEPS)
    runs = [_run(pipeline, job, batch, job["steps"]) for _ in range(job["repeats"])]
    return [whole for whole, _ in runs], [steps for _, steps in runs]


def _run(pipeline: Any, job: dict[str, Any], batch: int, steps: int) -> tuple[float, float]:
    torch = import_module("torch")
    ends: list[float] = []

    def after_step(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == steps - 1:
            _wait(torch)
            ends.append(time.perf_counter())
        return tensors

    begun = time.perf_counter()
    pipeline(
        prompt=job["prompt"],
        num_images_per_prompt=batch,
        num_inference_steps=steps,
        guidance_scale=job["cfg"],
        generator=torch.Generator("cpu").manual_seed(job["seed"]),
        callback_on_step_end=after_step,
        output_type="pil",
    )
    return time.perf_counter() - begun, ends[0] - begun


def _wait(torch: Any) -> None:
    """Wait for the device, so that the clock counts what was computed."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
