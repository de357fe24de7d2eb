"""Exit codes and messages, where no daemon is needed to have them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.cli.submission import given
from daemon.client.inputs import adapter_files
from daemon.errors import UsageError


@pytest.fixture(autouse=True)
def nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIOQ_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.setenv("STUDIOQ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STUDIOQ_SYSTEM_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.delenv("STUDIOQ_TEST_KINDS", raising=False)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["list"], 3, "no daemon answers at"),
        (["show", "1"], 3, "studioq daemon start"),
        (["wait", "1", "--timeout", "1s"], 3, "no daemon answers at"),
        (["show", "x"], 2, "'x' is not a job's number"),
        (["show", "-12"], 2, "'-12' is neither an option nor a job's number"),
        (["wait", "3", "-1"], 2, "'-1' is neither an option nor a job's number"),
        (["show", "-x"], 2, "No such option"),
        (["show", "0"], 2, "'0' is not a job's number"),
        (["cancel", "9" * 5000], 2, "…' is not a job's number; studioq list"),
        (["show", "9" * 40], 3, "no daemon answers at"),
        (["list", "--limit", "10001"], 2, "10001 is not in the range"),
        (["wait", "1", "--timeout", "5"], 2, "'5' is not a duration; write 90s"),
        (["nonsense"], 2, "nonsense"),
        (["noop"], 2, "noop"),
        (["infer", "--model", "m"], 2, "neither --prompt nor --prompts is given"),
        (["infer", "--model", "m", "--prompt", "a", "--prompts", "b"], 2, "--prompts are given"),
        (
            ["infer", "--model", "m", "--prompts", "/nonexistent.jsonl"],
            2,
            "no file /nonexistent.jsonl",
        ),
        (["infer", "--model", "m", "--prompt", "a", "--adapter", "/nonexistent"], 2, "job:N"),
        (["infer", "--model", "m", "--prompt", "a", "--temp", "nan"], 2, "'nan' is not a finite"),
        (
            ["infer", "--model", "m", "--prompt", "a", "--timeout", "2s"],
            2,
            "--timeout needs --wait",
        ),
        (["infer", "--model", "m", "--prompt", "a", "--notify", "x"], 2, "--notify needs --wait"),
        (["train", "--model", "m", "--data", "/nonexistent"], 2, "no file /nonexistent"),
        (["train", "--data", "/tmp"], 2, "--model"),
        (["daemon", "start"], 2, "is not that of your home"),
    ],
)
def test_an_error_has_its_code_and_its_message_on_stderr(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("studioq: ")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "words", [["--prompts", "none.jsonl"], ["--prompt", "x", "--adapter", "."], ["--prompts", "."]]
)
def test_a_file_that_cannot_be_used_comes_with_a_remedy(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapters.safetensors").touch()
    assert main(["infer", "--model", "m", "--socket", "none", *words]) == 2
    assert "\n  remedy: " in capsys.readouterr().err


def test_an_adapter_that_is_not_whole_says_what_belongs_to_it(tmp_path: Path) -> None:
    (tmp_path / "adapters.safetensors").touch()
    with pytest.raises(UsageError, match=r"no file .*adapter_config\.json") as caught:
        adapter_files(tmp_path)
    assert "adapters.safetensors or adapter_model.safetensors" in str(caught.value.remedy)


def test_an_adapter_s_weights_have_mlx_lm_s_name_or_peft_s(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").touch()
    for name in ("adapter_model.safetensors", "adapters.safetensors"):
        (tmp_path / name).touch()
        assert adapter_files(tmp_path) == {
            "weights": tmp_path / name,
            "config": tmp_path / "adapter_config.json",
        }


def test_an_adapter_of_2023_is_one_file_or_a_folder_with_it(tmp_path: Path) -> None:
    file = tmp_path / "adapters.npz"
    file.touch()
    assert adapter_files(file) == adapter_files(tmp_path) == {"weights": file}
    (tmp_path / "adapter_config.json").touch()
    assert adapter_files(tmp_path).keys() == {"weights", "config"}


def test_a_folder_without_training_rows_says_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--model", "m", "--data", str(tmp_path)]) == 2
    assert "train.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["variable", "option", "pointer", "own"])
def test_stopping_what_does_not_run_is_done_already(
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if address != "variable":
        monkeypatch.delenv("STUDIOQ_SOCKET")
    if address == "pointer":
        (tmp_path / "none.toml").write_text(f'socket = "{tmp_path}/none.sock"\n')
    if address == "own":
        monkeypatch.setenv("STUDIOQ_RUNTIME", str(tmp_path))
    option = ["--socket", str(tmp_path / "named.sock")] if address == "option" else []
    assert main(["daemon", "stop", *option]) == 0
    told = capsys.readouterr().err
    assert "no daemon runs" in told
    assert "remedy" not in told


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_socket_may_stand_before_or_after_the_command(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option = ["--socket", str(tmp_path / "named.sock")]
    assert main([*option, "list"] if place == "before" else ["list", *option]) == 3
    assert "named.sock" in capsys.readouterr().err


def test_only_given_options_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    from daemon.cli.train import train

    words = ["--model", "m", "--data", "d", "--iters", "600", "--after", "3", "--after", "4"]
    with train.make_context("train", [*words, "--keys", "q_proj,v_proj", "--test"]) as ctx:
        assert given(ctx) == {
            "model": "m",
            "data": "d",
            "iters": 600,
            "after": [3, 4],
            "keys": ["q_proj", "v_proj"],
            "test": True,
        }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_names_the_command(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    assert "_STUDIOQ_COMPLETE" in capsys.readouterr().out


def studioq(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from daemon.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_completing_without_a_daemon_offers_commands_and_no_complaint() -> None:
    complete = {"_STUDIOQ_COMPLETE": "bash_complete", "COMP_CWORD": "1", "COMP_WORDS": "studioq sh"}
    done = studioq(**complete)
    assert (done.stdout, done.stderr) == ("plain,show\n", "")
    numbers = complete | {"COMP_CWORD": "2", "COMP_WORDS": "studioq show "}
    done = studioq(**numbers)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_a_closed_pipe_is_no_error() -> None:
    program = "import sys; from daemon.cli import main; sys.exit(main(['--help']))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.returncode == 0
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("stdin", "prompt"),
    [
        (b"SELECT \n", "SELECT "),
        (b"two\n\n", "two\n"),
        (b"none ", "none "),
        (b"dos\r\n", "dos"),
        (b"", ""),
    ],
)
def test_a_prompt_from_stdin_loses_one_line_end(stdin: bytes, prompt: str) -> None:
    program = "from daemon.cli.prompts import read_prompt; print(ascii(read_prompt()))"
    done = subprocess.run(
        [sys.executable, "-c", program], input=stdin, capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == ascii(prompt)


def test_where_models_go_is_known_without_a_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STUDIOQ_SOCKET")
    assert main(["models", "path"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/home/models\n"
    assert (tmp_path / "home" / "models").is_dir()
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    (tmp_path / "home" / "config.toml").write_text(f'model_roots = ["{tmp_path}/more"]\n')
    assert main(["models", "path", "--json"]) == 0
    roots = json.loads(capsys.readouterr().out)
    assert roots[:2] == [f"{tmp_path}/home/models", f"{tmp_path}/more"]


def test_where_the_models_of_another_daemon_go_is_asked_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "path"]) == 3
    assert "no daemon answers at" in capsys.readouterr().err
