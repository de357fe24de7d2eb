"""Models by way of the real client and command line: listed, shown, and removed by who may."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from daemon.access import Person, account_name
from daemon.cli import main
from daemon.cli.units import size
from daemon.client import Client
from daemon.errors import ConflictError, ForbiddenError, NotFoundError, SpecRefusedError
from daemon.ledger.downloads import end_download, request_download
from daemon.model_memory import machine_memory, on_cpu
from daemon.model_removal import find_removal, remove
from daemon.models import SHIPPED_MODELS, ModelRoots
from daemon.targets import user_folder
from tests.unit.image_folders import cut_short, write_image_folder
from tests.unit.language_folders import PARAMETERS, write_folder, write_gguf, write_shards

NOBODY = 65_534


@pytest.fixture
def client(stage: Any) -> Iterator[Client]:
    with Client(stage.paths.socket) as opened:
        yield opened


@pytest.fixture
def models(stage: Any) -> Path:
    root: Path = stage.paths.models
    return root


def entry(client: Client, name: str) -> Any:
    return next(model for model in client.models()["models"] if model["name"] == name)


def test_a_model_is_listed_with_what_it_is_and_needs(client: Client, models: Path) -> None:
    write_folder(models / "tiny")
    found = entry(client, "tiny")
    told = {name: found[name] for name in ("format", "architecture", "parameters", "bits")}
    assert told == {
        "format": "hf",
        "architecture": "llama",
        "parameters": PARAMETERS,
        "bits": 16,
    }
    assert (found["state"], found["error"], found["remedy"]) == ("ready", None, None)
    assert found["memory_bytes"] == PARAMETERS * (4 if on_cpu() else 2)
    assert found["fits"] == "yes"
    memory = client.models()["memory"]
    assert memory == {"limit": machine_memory(), "source": "machine"}


def test_an_unusable_model_says_why_and_what_to_do(client: Client, models: Path) -> None:
    write_shards(models / "cut")
    cut_short(models / "cut" / "model-00001-of-00003.safetensors")
    found = entry(client, "cut")
    assert found["state"] == "unusable"
    assert found["error"].startswith("cut: model-00001-of-00003.safetensors is incomplete")
    assert found["remedy"].startswith("download or copy the file again")
    with pytest.raises(SpecRefusedError) as refused:
        client.submit("infer", {"model": "cut", "prompt": "x"})
    said = found["error"].removeprefix("cut: ")  # the field has named it
    assert refused.value.message == f"model = 'cut': {said}"
    assert refused.value.remedy == found["remedy"]


def test_one_model_is_shown_with_its_files_and_where_it_came_from(
    client: Client, models: Path
) -> None:
    folder = write_folder(models / "ada" / "mine")
    made = {"job": 7, "source": "org/base", "source_fingerprint": "ab", "spec": {"secret": 1}}
    (folder / "conversion.json").write_text(json.dumps(made), encoding="utf-8")
    found = client.model("ada/mine")
    assert [file["name"] for file in found["files"]] == [
        "config.json",
        "conversion.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert sum(file["bytes"] for file in found["files"]) == found["bytes"]
    made.pop("spec")
    assert found["conversion"] == made
    (folder / "conversion.json").write_text("[", encoding="utf-8")
    assert client.model("ada/mine")["conversion"] is None


def test_what_is_not_here_is_said(client: Client) -> None:
    assert client.model("smollm2")["state"] == "available"
    for name in ("nothing", "../../etc", "a" * 999):
        with pytest.raises(NotFoundError, match="there is no model"):
            client.model(name)
        with pytest.raises(NotFoundError, match="there is no model"):
            client.remove_model(name)


def test_an_admin_removes_a_folder_a_file_and_a_link(client: Client, models: Path) -> None:
    write_folder(models / "tiny")
    write_gguf(models / "one.gguf")
    (models / "one.json").write_text("{}")
    (models / "link").symlink_to("tiny")
    assert client.remove_model("link")["removed"] == [str(models / "link")]
    assert (models / "tiny" / "config.json").is_file()
    client.remove_model("tiny")
    client.remove_model("one")
    assert list(models.iterdir()) == []


def test_a_model_of_a_cache_is_removed_as_a_whole(client: Client, models: Path) -> None:
    snapshot = write_folder(models / "models--org--m" / "snapshots" / "1")
    write_folder(models / "snapshots" / "odd")
    assert snapshot.is_dir()
    client.remove_model("org/m")
    client.remove_model("snapshots/odd")
    assert [path.name for path in models.iterdir()] == ["snapshots"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can connect as somebody else")
def test_people_remove_their_own_and_nothing_else(stage: Any, models: Path) -> None:
    own = user_folder(account_name(NOBODY), NOBODY)
    write_folder(models / own / "mine")
    write_folder(models / "ada" / "hers")
    write_folder(models / "shared")
    write_gguf(models / f"{own}.gguf")
    peer = stage.peer(NOBODY)
    for name in ("ada/hers", "shared", f"{own}.gguf"):
        answer = peer.ask("DELETE", f"/models/{quote(name)}")
        assert answer.status == 403, name
        assert f"{name} is not your own" in answer.error["message"]
        assert f"are called {own}/" in answer.error["message"]
    assert peer.ask("DELETE", f"/models/{own}/mine").status == 200
    assert not (models / own / "mine").exists()
    assert (models / "ada" / "hers").is_dir()


def test_a_model_that_a_job_needs_stays(client: Client, models: Path) -> None:
    write_gguf(models / "one.gguf")
    number = client.submit("infer", {"model": "one.gguf", "prompt": "x"})["id"]
    with pytest.raises(ConflictError) as caught:
        client.remove_model("one")
    assert caught.value.message == f"one is needed by job {number}, not ended yet"
    assert f"studioq cancel {number}" in str(caught.value.remedy)
    assert [path.name for path in models.iterdir()] == ["one.gguf"]
    client.cancel(number)
    client.remove_model("one")
    assert list(models.iterdir()) == []


def removal(roots: ModelRoots, name: str, *, admin: bool = True) -> Any:
    return find_removal(roots, name, Person(uid=NOBODY, name="ada", admin=admin))


def test_what_comes_with_studioq_stays(models: Path) -> None:
    with pytest.raises(ForbiddenError, match="shapes comes with studioq"):
        removal(ModelRoots((models, SHIPPED_MODELS)), "shapes")


def test_a_link_on_the_way_is_not_followed(stage: Any, models: Path) -> None:
    write_folder(models / "bob" / "his")
    (models / "ada").symlink_to("bob")
    roots = ModelRoots((models,))
    found = removal(roots, "ada/his", admin=False)
    person = Person(uid=NOBODY, name="ada")
    with pytest.raises(ForbiddenError, match="ada is a link"):
        remove(found, models=roots, writer=stage.writer, person=person)
    assert (models / "bob" / "his" / "config.json").is_file()


def test_a_root_that_can_only_be_read_is_left_alone(stage: Any, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "cache" / "tiny")
    roots = ModelRoots((tmp_path / "none", folder.parent))
    found = removal(roots, "tiny")
    folder.parent.chmod(0o555)
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        with pytest.raises(ForbiddenError, match="tiny cannot be removed from"):
            remove(found, models=roots, writer=stage.writer, person=Person(uid=0, name="x"))
    finally:
        os.seteuid(before)
        folder.parent.chmod(0o755)
    assert (folder / "config.json").is_file()


def run(stage: Any, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["models", *words, "--socket", str(stage.paths.socket)])
    return code, *capsys.readouterr()


def test_the_list_shows_what_fits(
    stage: Any, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(models / "tiny")
    write_gguf(models / "mixed.gguf", {"a.weight": ("Q4_1", (8, 32)), "b": ("Q8_0", (8, 32))})
    write_image_folder(models / "pictures")
    write_gguf(models / "cut.gguf").write_bytes(b"GGUF")
    code, out, err = run(stage, capsys)
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split() for line in out.splitlines()}
    assert rows["name"] == [
        *("name", "state", "format", "architecture", "parameters", "bits", "size", "fits", "note")
    ]
    assert rows["tiny"][1:6] == ["ready", "hf", "llama", "52", "16"]
    assert rows["tiny"][-1] == "yes"
    assert rows["mixed"][1:7] == ["ready", "gguf", "llama", "512", "6.0", "(mixed)"]
    assert rows["pictures"][1:5] == ["ready", "diffusers", "SD", "1.x"]
    assert rows["cut"][1:3] == ["unusable", "gguf"]
    assert "cut is not a complete GGUF file" in out


def test_a_page_shows_the_whole_model(
    stage: Any, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(models / "mine")
    made = {"job": 7, "source": "org/base"}
    (folder / "conversion.json").write_text(json.dumps(made), encoding="utf-8")
    page, _, files = run(stage, capsys, "show", "mine")[1].partition("\n\n")
    lines = dict(line.split("  ", 1) for line in page.splitlines())
    told = {name.strip(): value.strip() for name, value in lines.items()}
    assert told["path"] == str(folder)
    assert told["parameters"] == "52"
    assert told["made from"] == "org/base"
    assert told["made by"] == "job 7"
    assert files.splitlines()[-1].endswith("  tokenizer.json")


def test_rm_without_a_terminal_wants_to_be_told(
    stage: Any, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(models / "tiny")
    code, out, err = run(stage, capsys, "rm", "tiny")
    assert (code, out) == (2, "")
    assert "studioq models rm tiny --yes" in err
    code, out, err = run(stage, capsys, "rm", "tiny", "--yes", "--json")
    assert (code, json.loads(out)["name"], err) == (0, "tiny", "")
    assert run(stage, capsys, "rm", "tiny", "--yes")[0] == 4
    assert list(models.iterdir()) == []


def test_what_a_job_keeps_of_a_removed_model_is_said(
    stage: Any, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(models / "mine")
    os.link(folder / "model.safetensors", tmp_path / "model.safetensors")
    made = {"job": 7, "source": "base", "spec": {"fuse": None}}
    (folder / "conversion.json").write_text(json.dumps(made), encoding="utf-8")
    code, _, err = run(stage, capsys, "rm", "mine", "--yes")
    assert code == 0
    held = size((tmp_path / "model.safetensors").stat().st_size)
    assert f"{held} of it still take their room: the results of job 7 hold" in err


def test_a_failed_download_is_forgotten(
    stage: Any, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = {"message": "no such model", "remedy": None}
    with stage.ledger.writing() as session:
        for name in ("org/typo", "org/coming"):
            request_download(session, name, now=1.0)
        end_download(session, "org/typo", error=refused, now=2.0)
    assert "org/typo" in run(stage, capsys)[1]
    code, _, err = run(stage, capsys, "rm", "org/typo", "--yes")
    assert (code, "its failed download is forgotten" in err) == (0, True)
    assert "org/typo" not in run(stage, capsys)[1]
    assert run(stage, capsys, "rm", "org/coming", "--yes")[0] == 4


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 130), (b"y\n", 0)])
def test_rm_asks_on_a_terminal(stage: Any, models: Path, answer: bytes, code: int) -> None:
    folder = write_folder(models / "tiny")
    program = "from daemon.cli import main; raise SystemExit(main())"
    words = ["models", "rm", "tiny", "--socket", str(stage.paths.socket)]
    here, there = pty.openpty()
    try:
        os.write(here, answer)
        done = subprocess.run(
            [sys.executable, "-c", program, *words], stdin=there, capture_output=True, check=False
        )
    finally:
        os.close(here)
        os.close(there)
    assert f" in {folder}? [y/N]: " in done.stderr.decode()
    assert done.returncode == code
    assert folder.exists() is (code != 0)
