"""A form that starts from a job says what that job said, and nothing more."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.specs import load_spec
from tests.unit.tui.forms.conftest import all_fields
from tui.forms.entries import Upload, read
from tui.forms.fields import NOTHING, fields_of
from tui.forms.filling import entries_of

FILE = {"name": "rows.jsonl", "sha256": "a" * 64}
OTHER = {"name": "ink.safetensors", "sha256": "b" * 64}

SPECS: dict[str, dict[str, Any]] = {
    "train": {
        "model": "smollm2",
        "data": {"rows": FILE},
        "iters": 300,
        "learning_rate": 3e-4,
        "num_layers": "all",
        "keys": ["q_proj", "v_proj"],
        "optimizer": "adamw",
        "mask_prompt": True,
        "resume": "job:2@100",
        "sample_prompt": "Who\nspoke?",
        "seed": 7,
    },
    "infer": {
        "model": "smollm2",
        "prompts": FILE,
        "adapter": {"weights": OTHER, "config": FILE},
        "stop": ["\n\n", "End", ' "q'],
        "seed": 7,
    },
    "diffuse": {
        "prompt": "a red circle",
        "model": "org/name",
        "batch_size": 4,
        "image": FILE,
        "strength": 0.5,
        "lora": [{"file": OTHER, "scale": 0.8}],
        "metadata": False,
        "width": 64,
        "seed": 7,
    },
    "convert": {
        "model": "smollm2",
        "to": "small",
        "quantize": "4",
        "group_size": 32,
        "fuse": "job:3",
        "seed": 7,
    },
    "noop": {"steps": 3, "step_seconds": 0.5, "seed": 7},
}


@pytest.mark.parametrize("kind", SPECS)
def test_a_spec_comes_back_as_it_was_given(schema: dict[str, Any], kind: str) -> None:
    recorded = load_spec(kind, SPECS[kind]).model_dump(mode="json")
    fields = fields_of(schema, kind)
    entries = entries_of(fields, {"spec": recorded})
    assert set(entries) == set(SPECS[kind]), "what equals the default is left unset"
    again = {
        name: _sent(read(field, entries[name]))
        for field in fields
        if (name := field.name) in entries
    }
    assert again == SPECS[kind]
    assert load_spec(kind, again).model_dump(mode="json") == recorded


def _sent(value: Any) -> Any:
    assert value is not NOTHING
    return list(value.kept) if isinstance(value, Upload) else value


def test_kept_files_are_named_with_hash_and_scale(schema: dict[str, Any]) -> None:
    recorded = load_spec("diffuse", SPECS["diffuse"]).model_dump(mode="json")
    entries = entries_of(fields_of(schema, "diffuse"), {"spec": recorded})
    (lora,) = entries["lora"].kept
    assert (lora.label, lora.sha256) == ("ink.safetensors:0.8", "b" * 64)


def test_of_the_request_the_old_moment_is_left_behind(schema: dict[str, Any]) -> None:
    job = {
        "spec": {},
        "name": "minutes",
        "priority": "low",
        "after": [3],
        "begin_at": "2026-11-23T01:02:03Z",
        "time_limit_seconds": 5400.0,
        "share": True,
    }
    entries = entries_of(all_fields(schema, "train"), job)
    assert {name: entry.text for name, entry in entries.items()} == {
        "name": "minutes",
        "priority": "low",
        "time_limit_seconds": "90m",
        "share": "yes",
    }
