"""The training, validation and test rows of one job, ready for batches.

The rule this module protects: whatever does not reach the loss is said, once, with its number: rows
cut at the limit, rows left out, batches smaller than asked for.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from daemon.errors import JobError
from daemon.specs import InputFile, TrainSpec
from workers.events import Event, Facts, Log, SafePoint
from workers.language.data import Dataset, Encoder, encode_file, split_dataset

ROWS_PER_SAFE_POINT = 64


@dataclass(frozen=True, kw_only=True)
class Datasets:
    """The parts of the data; validation and test may be empty."""

    train: Dataset
    valid: Dataset
    test: Dataset


def load_datasets(
    spec: TrainSpec, inputs: Mapping[str, Path], encoder: Encoder
) -> Generator[Event, None, Datasets]:
    """Encode every file that the training uses.

    Raises:
        JobError: a row cannot be encoded, or fewer rows than a batch are left for training.
    """
    parts: dict[str, Dataset] = {}
    for field, file in spec.input_files().items():
        if field != "data.test" or spec.test:
            parts[field] = yield from _encode(encoder, file, inputs[field], field)
            yield from _losses_said(parts[field], file.name, spec.max_seq_length)
    truncated = sum(part.truncated for part in parts.values())
    if "data.rows" in parts:
        train, valid = split_dataset(parts.pop("data.rows"), spec.seed)
        parts |= {"data.train": train, "data.valid": valid}
    found = Datasets(
        train=parts["data.train"],
        valid=parts.get("data.valid", Dataset()),
        test=parts.get("data.test", Dataset()),
    )
    _check(found, spec)
    yield from _sizes_said(found, spec, truncated)
    return found


def _encode(
    encoder: Encoder, file: InputFile, path: Path, field: str
) -> Generator[Event, None, Dataset]:
    dataset = Dataset()
    for count, part in enumerate(encode_file(encoder, file.name, path, field), 1):
        dataset = part
        if count % ROWS_PER_SAFE_POINT == 0:
            yield SafePoint()
    return dataset


def _losses_said(part: Dataset, name: str, limit: int) -> Generator[Event, None, None]:
    if part.truncated:
        yield Log(text=f"{name}: {part.truncated} rows were cut at {limit} tokens (max_seq_length)")
    if part.left_out:
        yield Log(
            text=f"{name}: {part.left_out} rows were left out: nothing of them can be learned"
        )


def _check(found: Datasets, spec: TrainSpec) -> None:
    usable = len(found.train)
    if usable < spec.batch_size:
        raise JobError(
            f"{usable} rows for training are left, fewer than a batch of {spec.batch_size}",
            remedy="choose a smaller --batch-size, or a larger --max-seq-length",
        )
    if spec.test and not len(found.test):
        raise JobError("no test row is left that the loss could be measured on")


def _sizes_said(found: Datasets, spec: TrainSpec, truncated: int) -> Generator[Event, None, None]:
    sizes = {"training": found.train, "validation": found.valid, "test": found.test}
    for what, part in sizes.items():
        if 0 < len(part) < spec.batch_size:
            yield Log(text=f"Batches for {what} have {len(part)} rows: there are no more")
    if not len(found.valid):
        yield Log(text="No validation rows: the training goes without validation")
    yield Facts(
        facts={
            "train_rows": len(found.train),
            "valid_rows": len(found.valid),
            "test_rows": len(found.test),
            "truncated_rows": truncated,
        }
    )
