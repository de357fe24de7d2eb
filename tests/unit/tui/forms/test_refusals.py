"""What is wrong stands beside the field that it is about, for every kind of job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.tui.conftest import Studio
from tests.unit.tui.forms.conftest import run, seated
from tui.forms.controls import Keep

ROWS = {"name": "rows.jsonl", "sha256": "a" * 64}


@pytest.mark.parametrize(
    ("kind", "typed", "at", "said"),
    [
        ("train", {"model": "smollm2", "data": "/no/such"}, "data", "there is no file /no/such"),
        ("infer", {"model": "./x", "prompts": "ROWS"}, "model", "is a path; a model is named"),
        ("diffuse", {"model": "org/name", "image": "ROWS"}, "image", "rows.jsonl"),
        ("convert", {"model": "smollm2", "to": "a/b"}, "to", "has a slash"),
        ("noop", {"fail_at": "-1"}, "fail_at", "allowed are whole numbers from 0"),
    ],
)
def test_a_refusal_of_the_daemon(
    studio: Studio, tmp_path: Path, kind: str, typed: dict[str, str], at: str, said: str
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Who?"}\n')

    async def story() -> None:
        async with seated(studio, kind=kind) as seat:
            if kind == "diffuse":
                await seat.press("x")
            for name, text in typed.items():
                await seat.write(name, text.replace("ROWS", str(rows)))
            await seat.press("ctrl+s")
            await seat.until(lambda: said in seat.complaint(at))
            await seat.until(lambda: seat.focused == f"spec-{at}")
            view, row = seat.form.query_one("#fields").region, seat.row(at)
            await seat.until(lambda: view.contains_region(row.region))
            assert all(seat.row(name).entry.text for name in typed), "nothing typed is lost"
            await seat.press("1")
            await seat.until(lambda: not seat.complaint(at))

    run(story)


def test_a_field_in_a_closed_group_is_opened(studio: Studio) -> None:
    async def story() -> None:
        async with seated(studio, kind="diffuse") as seat:
            await seat.press(*"a fox", "ctrl+o")
            await seat.write("strength", "0.5")
            await seat.press("ctrl+o")
            await seat.until(lambda: not seat.row("strength").display)
            await seat.press("ctrl+s")
            await seat.until(lambda: "no image to start from" in seat.complaint("strength"))
            assert seat.row("strength").display
            assert "leave --strength out" in seat.complaint("strength")

    run(story)


def test_the_requests_own_fields(studio: Studio) -> None:
    async def story() -> None:
        async with seated(studio, kind="noop") as seat:
            await seat.press("ctrl+o")
            await seat.write("after", "999", "request")
            await seat.press("ctrl+s")
            await seat.until(lambda: "999" in seat.complaint("after", "request"))

    run(story)


def test_what_belongs_to_no_field_stands_at_the_top(studio: Studio) -> None:
    async def story() -> None:
        async with seated(studio, kind="infer") as seat:
            await seat.write("model", "smollm2")
            await seat.press("ctrl+s")
            await seat.until(lambda: "neither given" in seat.notice)
            assert seat.form.query_one("#notice").has_class("-error")

    run(story)


def test_what_cannot_be_read_is_said_without_the_daemon(studio: Studio) -> None:
    async def story() -> None:
        async with seated(studio, kind="train") as seat:
            await seat.go("iters")
            await seat.press(*"12x")
            assert not seat.complaint("iters"), "nobody is interrupted while typing"
            await seat.press("tab")
            await seat.until(lambda: "iters = '12x': allowed are" in seat.complaint("iters"))
            await seat.press("ctrl+s")
            await seat.until(lambda: "model is missing" in seat.complaint("model"))
            assert "data is missing" in seat.complaint("data")
            assert seat.focused == "spec-model"

    run(story)


def diffusion(studio: Studio) -> int:
    spec: dict[str, Any] = {
        "prompt": "a red circle",
        "model": "org/name",
        "cfg": 4,
        "lora": [{"file": {"name": "ink.safetensors", "sha256": "b" * 64}, "scale": 0.8}],
        "seed": 7,
    }
    return studio.add("diffuse", spec=spec, name="poster")


def test_a_job_like_another(studio: Studio) -> None:
    number = diffusion(studio)

    async def story() -> None:
        async with seated(studio, start_from=number) as seat:
            kept = f"ink.safetensors:0.8 of job {number}"
            seed_and_name = "--seed 7 --name poster"
            await seat.until(lambda: seat.command.endswith(kept))
            assert "--cfg 4" in seat.command
            assert seed_and_name in seat.command
            assert "--steps" not in seat.command
            await seat.press("ctrl+s")
            await seat.until(lambda: "you have not uploaded ink" in seat.complaint("lora"))
            assert "give its path here again" in seat.complaint("lora")
            keep = seat.row("lora").query_one(Keep)
            keep.focus()
            await seat.press("space")
            await seat.until(lambda: "--lora" not in seat.command)
            await seat.press("ctrl+s")
            await seat.until(lambda: isinstance(seat.app.answer, int))
        with studio.connect() as client:
            spec = client.job(int(str(seat.app.answer)))["spec"]
        assert (spec["prompt"], spec["cfg"], spec["seed"]) == ("a red circle", 4, 7)
        assert spec["lora"] == []

    run(story)


def test_a_kept_file_need_not_travel_again(studio: Studio, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "Hello there, how are you?"}\n' * 20)
    with studio.connect() as client:
        data = client.training_data(rows)
        number = client.submit("train", {"model": "smollm2", "data": data, "iters": 5})["id"]
    rows.unlink()

    async def story() -> None:
        async with seated(studio, start_from=number) as seat:
            await seat.press("escape")
            await seat.until(lambda: seat.app.answer is None)
        async with seated(studio, start_from=number) as seat:
            await seat.press("ctrl+s")
            await seat.until(lambda: isinstance(seat.app.answer, int))
        with studio.connect() as client:
            first, second = client.job(number), client.job(int(str(seat.app.answer)))
        assert first["spec"] == second["spec"]

    run(story)


def test_a_job_that_cannot_be_started_from(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    number = studio.add("noop")
    monkeypatch.setenv("STUDIOQ_TEST_KINDS", "0")

    async def story() -> None:
        async with seated(studio, kind="train", start_from=number) as seat:
            await seat.until(lambda: "is of kind noop" in seat.notice)
            assert seat.command.startswith("studioq train")

    run(story)
