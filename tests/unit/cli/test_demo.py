"""What the demo and its progress view say."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from daemon import demo, demo_rows
from daemon.cli.watch import View
from daemon.errors import ExitCode


def job(state: str = "running", done: int = 0, **values: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "kind": "train",
        "name": "SQL adapter",
        "state": state,
        "reason": None,
        "error": None,
        "metrics": {"train_loss": 1.2345},
        "progress": {"done": done, "total": 40, "eta_seconds": 75.0},
    } | values


def test_plain_lines_come_only_with_news() -> None:
    stream = io.StringIO()
    view = View(stream=stream)
    for done in range(41):
        view.show(job(done=done))
    view.finish(job("succeeded", 40))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 12
    assert (
        lines[5]
        == "job 1  SQL adapter  ● running  [############............] 20/40  loss 1.234  75s left"
    )
    assert lines[-1] == "job 1  SQL adapter  ✓ succeeded"


def test_why_a_job_waits_is_news() -> None:
    stream = io.StringIO()
    view = View(stream=stream)
    for percent in (1, 1, 2):
        view.show(job("waiting", reason=f"downloading smollm2: {percent} MB"))
    assert len(stream.getvalue().splitlines()) == 2


def test_a_live_line_fits_the_terminal_and_is_left_at_the_end() -> None:
    stream = io.StringIO()
    view = View(stream=stream, live=True, width=40)
    view.show(job(done=20))
    view.finish(job("succeeded", 40))
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert all(len(part) < 40 for part in text.replace("\n", "").split("\r\x1b[2K"))


def test_a_reason_that_does_not_fit_is_written_out_once() -> None:
    stream = io.StringIO()
    view = View(stream=stream, live=True, width=40)
    long = "the GPU is held by process 7 of user bo (home /homes/bo)"
    for reason in (long, long, "short", long):
        view.show(job("queued", reason=reason))
    whole = [text for text in stream.getvalue().split("\r\x1b[2K") if text.endswith("\n")]
    assert whole == [f"job 1: {long}\n"]


def metric(name: str, step: int, value: float) -> dict[str, Any]:
    return {"name": name, "step": step, "value": value}


def test_the_report_shows_first_and_last_losses_answers_and_files() -> None:
    metrics = [
        metric("train_loss", 5, 2.5),
        metric("val_loss", 1, 3.0),
        metric("train_loss", 40, 0.03),
    ]
    text = "\n".join(
        demo.report(metrics, ["I am a mountain.\nYes.", "SELECT a"], [Path("/r/loss.png")])
    )
    assert "training loss     2.5 -> 0.03  (iteration 5 to 40)" in text
    assert "validation loss   3 -> 3  (iteration 1 to 1)" in text
    assert "without adapter   I am a mountain. / Yes." in text
    assert "with adapter      SELECT a" in text
    assert "/r/loss.png" in text
    assert demo_rows.QUESTION.splitlines()[2] in text


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("Eiger is high.", "SELECT Height FROM mountains", ExitCode.OK),
        ("Eiger is high.", "Eiger is high.", ExitCode.JOB_FAILED),
        ("SELECT a FROM b", "SELECT Height FROM mountains", ExitCode.JOB_FAILED),
        ("", "SELECT Height", ExitCode.JOB_FAILED),
    ],
)
def test_the_demo_succeeds_only_if_the_adapter_did_it(
    before: str, after: str, code: ExitCode
) -> None:
    assert demo.check(before, after) == code


def test_the_demo_shares_the_models_of_the_users_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIOQ_HOME", str(tmp_path / "own"))
    monkeypatch.delenv("STUDIOQ_RUNTIME", raising=False)
    paths = demo.demo_paths(str(tmp_path / "demo"))
    assert paths.models.resolve() == tmp_path / "own" / "models"
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
    assert demo.demo_paths(str(tmp_path / "demo")) == paths
    monkeypatch.setenv("STUDIOQ_RUNTIME", str(tmp_path / "run"))
    assert demo.demo_paths(str(tmp_path / "demo")).runtime == tmp_path / "run" / "demo"
    own = demo.demo_paths(str(tmp_path / "own"))
    assert not own.models.is_symlink()
