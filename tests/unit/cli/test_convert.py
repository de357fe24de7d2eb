"""What ``studioq convert`` sends."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.cli import main
from daemon.cli.convert import convert
from daemon.cli.submission import given


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDIOQ_SOCKET", str(tmp_path / "none.sock"))
    return tmp_path


def test_only_given_options_travel() -> None:
    with convert.make_context("convert", ["m", "--to", "new"]) as ctx:
        assert given(ctx) == {"model": "m", "to": "new"}
    words = ["m", "--to", "new", "--quantize", "4", "--group-size", "32", "--dtype", "fp16"]
    with convert.make_context("convert", [*words, "--dequantize", "--fuse", "job:3"]) as ctx:
        assert given(ctx) == {
            "model": "m",
            "to": "new",
            "quantize": "4",
            "group_size": 32,
            "dtype": "fp16",
            "dequantize": True,
            "fuse": "job:3",
        }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "SRC"),
        (["m"], "--to"),
        (["m", "--to", "new", "--quantize", "7"], "'7' is not one of"),
        (["m", "--to", "new", "--group-size", "many"], "'many' is not a valid integer"),
        (["m", "--to", "new", "--dtype", "float16"], "'float16' is not one of"),
        (["m", "--to", "new", "--fuse", "none"], "there is no adapter folder none"),
        (["m", "--to", "new", "--fuse", "."], "there is no file adapters.safetensors"),
    ],
)
def test_what_the_client_cannot_read_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err
