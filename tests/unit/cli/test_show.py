"""The page of one job: what it says, and what it leaves out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from daemon.cli.show import render_job

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def lines(**values: Any) -> list[str]:
    """Return the page's lines, each as its words with single blanks."""
    job = {
        "id": 2,
        "kind": "diffuse",
        "name": None,
        "model": "shapes",
        "user": "ana",
        "state": "succeeded",
        "reason": None,
        "priority": "normal",
        "position": None,
        "created_at": "2026-11-22T01:02:03.000Z",
        "started_at": None,
        "ended_at": None,
        "spec": {},
        "attempts": [],
        "metrics": {},
        "artifacts": [],
        **values,
    }
    return [" ".join(line.split()) for line in render_job(job, NOW, width=None)]


def test_a_strength_is_shown_beside_an_image_only() -> None:
    image = {"name": "photo.png", "sha256": "a" * 64}
    assert "strength 0.7" in lines(spec={"image": image, "strength": 0.7})
    text_alone = lines(spec={"image": None, "strength": 0.7, "steps": 25})
    assert "steps 25" in text_alone
    assert not any("strength" in line for line in text_alone)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"model_fingerprint": ["a" * 64, "b" * 64]},
            "since then the model shapes has changed (aaaaaaaa… to bbbbbbbb…)",
        ),
        (
            {"version_mlx": ["0.32.3", "0.32.4"], "device": ["Apple M2", "cpu"]},
            "since then mlx has changed (0.32.3 to 0.32.4); device has changed (Apple M2 to cpu)",
        ),
        (
            {"adapter_sha256": ["a" * 64, "b" * 64]},
            "since then the adapter has changed (aaaaaaaa… to bbbbbbbb…)",
        ),
    ],
)
def test_what_a_repeated_job_was_made_with_otherwise_is_told(
    changed: dict[str, Any], line: str
) -> None:
    assert line in lines(repeats=1, identical=False, changed=changed)


def test_bytes_are_shown_as_sizes_and_the_rest_as_numbers() -> None:
    measured = {"bytes_read": 8.337e7, "bytes_per_second": 8.89e8, "peak_memory_bytes": 2.7e8}
    shown = lines(metrics={**measured, "seconds": 15.234})
    assert shown[-4:] == [
        "bytes_read 83.4 MB",
        "bytes_per_second 889 MB/s",
        "peak_memory_bytes 270 MB",
        "seconds 15.23",
    ]


@pytest.mark.parametrize(("count", "told"), [(1, "and 1 file of"), (2, "and 2 files of")])
def test_files_of_checkpoints_are_counted(count: int, told: str) -> None:
    file = {"name": "checkpoints/1/state", "kind": "state", "bytes": 1, "sha256": "a" * 64}
    (line,) = [line for line in lines(artifacts=[file] * count) if "--all" in line]
    assert line == f"{told} checkpoints (studioq fetch 2 --all)"


@pytest.mark.parametrize("changed", [None, {}])
def test_what_has_not_changed_is_not_told(changed: object) -> None:
    assert not any("since then" in line for line in lines(repeats=1, changed=changed))
