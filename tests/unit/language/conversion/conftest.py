"""Models to convert, and what runs a conversion as the engine does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

from daemon.specs import ConvertSpec
from workers import convert
from workers.events import Event
from workers.kinds import Context, Control
from workers.language.conversion.shards import SHARD_BYTES
from workers.models import ModelCache

Run = Callable[..., Iterator[Event]]


class Studio:
    """Converts into a model root in a folder of its own; ``target`` is ``ada/new`` there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target = folder / "models" / "ada" / "new"
        self.control = Control()
        self.attempts = 0

    @property
    def staging(self) -> Path:
        return self.target.with_name(".new.job-7")

    @property
    def attempt(self) -> Path:
        """The folder of the last attempt."""
        return self.folder / f"attempt-{self.attempts}"

    def begin(
        self,
        model: Path,
        *,
        adapter: Path | None = None,
        checkpoint: Path | None = None,
        shard_bytes: int = SHARD_BYTES,
        job: int = 7,
        **options: Any,
    ) -> Iterator[Event]:
        """Return the events of a new attempt, none of which has happened yet."""
        self.attempts += 1
        self.attempt.mkdir(parents=True)
        self.control = Control()
        if adapter is not None:
            options.setdefault("fuse", "job:3")
        context = Context(
            job=job,
            attempt=self.attempts,
            spec=ConvertSpec(**{"model": "tiny", "to": "new", "seed": 1, **options}),
            folder=self.attempt,
            models=ModelCache(1 << 30, lambda: 0.0),
            model=model,
            adapter=adapter,
            checkpoint=checkpoint,
            target=self.target,
            control=self.control,
        )
        return convert.run(context, lambda: 0.0, shard_bytes=shard_bytes)

    def convert(self, model: Path, **options: Any) -> list[Event]:
        """Convert to the end and return what happened."""
        return list(self.begin(model, **options))


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path / "studio")


def weights(folder: Path) -> dict[str, mx.array]:
    """Return every tensor of a folder's files as they are stored."""
    found: dict[str, mx.array] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        loaded: Any = mx.load(str(file))
        found |= loaded
    return found


def differing(one: dict[str, mx.array], other: dict[str, mx.array]) -> list[str]:
    """Return the names of what is not the same in both, to the last bit."""
    return [
        name
        for name in sorted(one.keys() | other.keys())
        if name not in one
        or name not in other
        or one[name].dtype != other[name].dtype
        or one[name].shape != other[name].shape
        or not mx.array_equal(one[name].view(mx.uint8), other[name].view(mx.uint8)).item()
    ]


def as_stored(model: Path, dtype: mx.Dtype, folder: Path) -> Path:
    """Write a copy of a Hugging Face folder with its weights in another type; return it."""
    folder.mkdir(parents=True)
    for file in model.iterdir():
        if not file.name.startswith("model"):
            (folder / file.name).write_bytes(file.read_bytes())
    arrays = {name: array.astype(dtype) for name, array in weights(model).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, {"format": "mlx"})
    return folder


def logits(folder: Path) -> mx.array:
    """Return the network's answer to a few tokens in float32, (1, 6, vocabulary)."""
    model, _ = load_model(folder)
    model.set_dtype(mx.float32)
    answer: mx.array = model(mx.array([[5, 80, 3, 3, 200, 17]]))
    mx.eval(answer)
    return answer


def parameter_names(folder: Path) -> set[str]:
    model, _ = load_model(folder, lazy=True)
    return {name for name, _ in tree_flatten(model.parameters())}
