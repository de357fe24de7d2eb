"""The table of models: names are whole, and reasons can be read, on a narrow terminal too."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.cli.models import render_models

LONG = "seed/mistral-7b-v0.1-wikisql-4bit"
REASON = (
    "broken is incomplete: it has no model-00002-of-00002.safetensors, which its index names "
    "as the place of model.layers.16.self_attn.q_proj.weight"
)


def model(**values: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "name": LONG,
        "state": "available",
        "format": "original",
        "architecture": "mistral",
        "parameters": 7_241_732_096,
        "bits": 4.5,
        "mixed_bits": True,
        "bytes": 4_100_000_000,
        "memory_bytes": 4_100_000_000,
        "fits": "yes",
        "error": None,
    }
    return whole | values


@pytest.mark.parametrize("width", [80, 60, 58])
def test_the_name_is_whole_while_something_else_can_give_way(width: int) -> None:
    title, line = render_models([model()], None, width=width)
    assert line.startswith(f"{LONG}  available")
    assert max(map(len, (title, line))) <= width
    assert "architecture" not in title
    assert "4.1 GB" in line


def test_a_wide_terminal_has_every_column() -> None:
    title, _ = render_models([model()], None, width=160)
    assert "architecture" in title
    assert "parameters" in title


def test_a_reason_is_below_its_model_in_full() -> None:
    broken = model(name="broken", state="unusable", fits=None, error=REASON)
    lines = render_models([broken, model()], None, width=80)
    below = [line for line in lines[2:] if line.startswith("    ")]
    assert " ".join(line.strip() for line in below) == REASON
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith(LONG)


def test_in_a_pipe_a_model_is_one_line() -> None:
    title, line = render_models([model(error=REASON)], None, width=None)
    assert title.endswith("note")
    assert line.endswith(REASON)


def test_what_does_not_fit_says_what_it_needs() -> None:
    lines = render_models([model(fits="no", memory_bytes=14e9)], 8_000_000_000, width=80)
    assert lines[2].strip() == "needs 14 GB; the limit is 8 GB"
