"""A form's values on their way to a real daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daemon.errors import SpecRefusedError, StudioqError, UsageError
from tests.unit.tui.conftest import Studio
from tui.forms.entries import Upload
from tui.forms.sending import Submission, send
from tui.forms.shapes import Control


def submitted(studio: Studio, kind: str, spec: dict[str, Any], **request: Any) -> dict[str, Any]:
    said: list[str] = []
    with studio.connect() as client:
        job = Submission(kind=kind, spec=spec, request=request)
        number = send(client, job, said.append)["id"]
        return {**client.job(number), "said": said}


def test_files_travel_and_the_job_is_queued(studio: Studio, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "Hello there, how are you?"}\n' * 20)
    spec = {"model": "smollm2", "data": Upload(control=Control.DATA, texts=(str(rows),))}
    job = submitted(studio, "train", spec, name="minutes")
    assert job["name"] == "minutes"
    assert job["spec"]["data"]["rows"]["name"] == "rows.jsonl"
    assert job["said"] == ["sending rows.jsonl", "queueing the job"]


def test_a_job_reference_is_no_file(studio: Studio) -> None:
    fuse = Upload(control=Control.ADAPTER, texts=("job:999",))
    with pytest.raises(SpecRefusedError) as refused:
        submitted(studio, "convert", {"model": "smollm2", "to": "small", "fuse": fuse})
    assert refused.value.field == "fuse"


@pytest.mark.parametrize("control", [Control.DATA, Control.ADAPTER, Control.LORAS, Control.FILE])
def test_a_file_that_is_not_there_is_said_of_its_field(studio: Studio, control: Control) -> None:
    with pytest.raises(StudioqError) as refused:
        submitted(studio, "noop", {"thing": Upload(control=control, texts=("/no/such",))})
    assert refused.value.field == "thing"
    assert "/no/such" in refused.value.message


def test_a_file_that_cannot_be_read_to_its_end(studio: Studio, tmp_path: Path) -> None:
    folder = tmp_path / ("n" * 300)
    with pytest.raises(UsageError) as refused:
        submitted(studio, "noop", {"x": Upload(control=Control.DATA, texts=(str(folder),))})
    assert refused.value.field == "x"


def test_several_files_beside_kept_ones(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    kept = {"name": "b", "sha256": "b" * 64}
    files = Upload(control=Control.FILES, texts=(str(tmp_path / "a.txt"),), kept=(kept,))
    with pytest.raises(SpecRefusedError) as refused:
        submitted(studio, "noop", {"takes": files})
    assert refused.value.field == "takes", "noop has no such option, and says so"
