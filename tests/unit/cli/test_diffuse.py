"""What ``studioq diffuse`` sends, and how it reads ``--lora FILE:SCALE``."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.cli import main
from daemon.cli.diffuse import diffuse
from daemon.cli.submission import given
from daemon.client.inputs import lora_file
from daemon.errors import UsageError


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDIOQ_SOCKET", str(tmp_path / "none.sock"))
    return tmp_path


def test_only_given_options_travel() -> None:
    with diffuse.make_context("diffuse", ["a red circle"]) as ctx:
        assert given(ctx) == {"prompt": "a red circle"}
    words = ["-", "--no-metadata", "--lora", "a:1", "--lora", "b", "--n-images", "1"]
    with diffuse.make_context("diffuse", [*words, "--batch-size", "auto"]) as ctx:
        assert given(ctx) == {
            "prompt": "-",
            "metadata": False,
            "lora": ["a:1", "b"],
            "n_images": 1,
            "batch_size": "auto",
        }
    with diffuse.make_context("diffuse", ["x", "--batch-size", "4"]) as ctx:
        assert given(ctx)["batch_size"] == 4


@pytest.mark.parametrize(
    ("text", "file", "scale"),
    [
        ("style.safetensors", "style.safetensors", None),
        ("style.safetensors:0.8", "style.safetensors", 0.8),
        ("style.safetensors:-1", "style.safetensors", -1.0),
        ("a:b.safetensors", "a:b.safetensors", None),
        ("a:b.safetensors:.5", "a:b.safetensors", 0.5),
        ("odd:1", "odd:1", None),
        ("odd:1:2", "odd:1", 2.0),
    ],
)
def test_a_scale_stands_behind_the_last_colon(
    somewhere: Path, text: str, file: str, scale: float | None
) -> None:
    for name in ("style.safetensors", "a:b.safetensors", "odd", "odd:1"):
        (somewhere / name).touch()
    assert lora_file(text) == (Path(file), scale)


@pytest.mark.parametrize(
    "text", ["", "none", "none:1", "a:", "a:x", "a:nan", "a:inf", ":1", "folder", "folder:1"]
)
def test_a_lora_that_cannot_be_read_says_how_to_name_one(somewhere: Path, text: str) -> None:
    (somewhere / "a").touch()
    (somewhere / "folder").mkdir()
    with pytest.raises(UsageError) as caught:
        lora_file(text)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "PROMPT"),
        (["x", "y"], "y"),
        (["x", "--image", "none.png"], "no file none.png"),
        (["x", "--mask", "."], ". is a folder"),
        (["x", "--lora", "none.safetensors:0.8"], "no file none.safetensors\n"),
        (["x", "--batch-size", "many"], "'many' is neither a number of pictures nor auto"),
        (["x", "--cfg", "nan"], "'nan' is not a finite number"),
        (["x", "--sampler", "plms"], "plms"),
        (["x", "--notify", "y"], "--notify needs --wait"),
    ],
)
def test_what_the_client_cannot_read_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diffuse", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_an_unquoted_prompt_is_told_of_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diffuse", "a", "red", "circle", "--seed", "3"]) == 2
    assert "remedy: put a prompt of several words in quotes" in capsys.readouterr().err
    assert main(["infer", "--model", "m", "--prompt", "who", "is", "it"]) == 2
    assert "remedy: put a prompt of several words in quotes" in capsys.readouterr().err
    assert main(["retry", "1", "2"]) == 2
    assert "remedy: studioq retry --help" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--all"], ["image-0000.png"]])
def test_a_preview_is_fetched_alone(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "1", "--preview", *words]) == 2
    assert "--preview brings one picture" in capsys.readouterr().err
