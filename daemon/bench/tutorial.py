"""What the MLX tutorial of December 2023 published, in the form of this program's own records.

The rule this module protects: these numbers are another machine's, another model's and nobody's
here; wherever they are shown they are called the tutorial's.
"""

from __future__ import annotations

from daemon.bench.record import Figure, Machine, Record, Result

SAYS = "the MLX tutorial's (December 2023): another machine and another model, not measured here"

# mlx-examples, stable_diffusion/README.md: Stable Diffusion 2.1, 512x512, guidance, float32, 50
# steps, M2 Ultra; step-images per second by batch, PyTorch's and MLX's.
PICTURES: dict[int, tuple[float, float]] = {
    1: (6.25, 4.17),
    2: (7.14, 5.88),
    4: (7.69, 7.14),
    6: (7.22, 8.00),
    8: (6.89, 8.42),
    12: (6.62, 8.51),
    16: (6.32, 8.79),
}

# The weights of Mistral 7B in 16 bits that one token reads, and an M2 Max's bandwidth.
_MISTRAL_BYTES, _M2_MAX = 14.22e9, 400e9


def _one(key: str, unit: str, value: float) -> Figure:
    return Figure(key=key, unit=unit, values=(value,))


def _training(tokens: float, iterations: float | None = None) -> Result:
    """Return Llama 7B's LoRA on WikiSQL: batch 4, rank 8, q and v of 16 layers (lora/README.md)."""
    figures = [_one("train.tokens_per_sec", "tok/s", tokens)]
    if iterations is not None:
        figures.insert(0, _one("train.it_per_sec", "it/s", iterations))
    return Result(table="train", model="Llama 7B", figures=tuple(figures))


def _decoding() -> Result:
    return Result(
        table="infer",
        model="Mistral 7B, F16",
        facts={"decode_weight_bytes": _MISTRAL_BYTES},
        figures=(_one("infer.tokens_per_sec", "tok/s", 30.0),),
    )


def _pictures() -> Result:
    figures = []
    for batch, (torch, mlx) in PICTURES.items():
        unit = "step-pictures/s"
        figures.append(_one(f"diffuse.step_pictures_per_sec@{batch}", unit, mlx))
        figures.append(_one(f"torch.step_pictures_per_sec@{batch}", unit, torch))
    return Result(table="diffuse", model="Stable Diffusion 2.1", figures=tuple(figures))


M2_ULTRA = Record(
    date="2023-12",
    machine=Machine(device="M2 Ultra", kind="metal", bandwidth=800e9, bandwidth_source="published"),
    results=(_training(475.0), _pictures()),
)
# 290.433 is the quoted output line's; the text says 250 to 290.
M2_MAX = Record(
    date="2023-12",
    machine=Machine(device="M2 Max", kind="metal", bandwidth=_M2_MAX, bandwidth_source="published"),
    results=(_training(290.433, 0.716), _decoding()),
)
MACHINES = (M2_ULTRA, M2_MAX)


def published_pictures() -> Result:
    """Return the tutorial's table of pictures by batch, MLX's and PyTorch's."""
    return M2_ULTRA.results[1]
