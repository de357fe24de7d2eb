"""Conversions by way of the real client: what is recorded, refused, waited for and repeated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from daemon.access import account_name
from daemon.cli import main
from daemon.client import Client
from daemon.errors import SpecRefusedError
from daemon.ledger import attempts, jobs
from daemon.ledger.attempts import Ending, File
from daemon.ledger.jobs import Submitted
from daemon.ledger.states import AttemptState
from daemon.ledger.users import ensure_user
from daemon.submission import Draft
from daemon.targets import user_folder
from tests.unit.image_folders import write_image_folder
from tests.unit.language_folders import write_gguf

NOW = 1_800_000_000.0
ADAPTER = ("adapters.safetensors", "adapter_config.json")
FOUR_BITS = {"group_size": 64, "bits": 4, "mode": "affine"}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A client of a served home with the model ``m``, and what jobs do to that home."""

    stage: Any
    client: Client
    models: Path
    user: str
    uid: int

    @property
    def folder(self) -> Path:
        """Where this user's models are."""
        return self.models / user_folder(self.user, self.uid)

    def convert(self, to: str = "new", **options: Any) -> int:
        request = {name: options.pop(name) for name in ("hold", "after") if name in options}
        spec = {"model": "m", "to": to, **options}
        return self.client.submit("convert", spec, **request)["id"]

    def refused(self, to: str = "new", **options: Any) -> SpecRefusedError:
        with pytest.raises(SpecRefusedError) as caught:
            self.convert(to, **options)
        assert caught.value.remedy
        return caught.value

    def run(self, number: int, state: AttemptState, *files: File) -> None:
        """Run a job to its end; files of an adapter lie in its folder then."""
        with self.stage.ledger.writing() as session:
            claim = attempts.claim(session, number, worker="w", device="cpu", now=NOW)
            assert claim is not None
            folder = self.stage.paths.attempt(number, claim.number)
            for file in files:
                (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
                (folder / file.name).write_bytes(b"{}")
            attempts.end(session, claim.fence, Ending(state=state, files=files), now=NOW)

    def make(self, number: int, to: str = "new", sha256: str = "a" * 64) -> None:
        """Let a conversion succeed: its model is there."""
        shutil.copytree(self.models / "m", self.folder / to, dirs_exist_ok=True)
        file = File(name="model/config.json", kind="model", bytes=2, sha256=sha256)
        self.run(number, AttemptState.SUCCEEDED, file)

    def train(self) -> int:
        rows = {"name": "rows.jsonl", "sha256": "0" * 64}
        with self.stage.ledger.writing() as session:
            user = ensure_user(session, uid=self.uid, name=self.user, now=NOW)
            spec = {"model": "m", "data": {"rows": rows}, "iters": 100, "save_every": 10}
            new = jobs.NewJob(user_id=user.id, kind="train", model="m", spec=spec)
            return jobs.submit(session, new, actor=self.user, now=NOW).id


@pytest.fixture
def desk(stage: Any, tiny_model: Path) -> Iterator[Bench]:
    models = stage.paths.models
    shutil.copytree(tiny_model, models / "m")
    with Client(stage.paths.socket) as client:
        me = client.status()["me"]
        yield Bench(stage=stage, client=client, models=models, user=me["name"], uid=me["uid"])


def write_adapter(folder: Path, inputs: int = 64) -> Path:
    """Write an adapter of the tiny model's, or one of ``inputs`` others."""
    matrix = np.zeros((inputs, 2), np.float32)
    save_file({"model.layers.0.self_attn.q_proj.lora_a": matrix}, folder / ADAPTER[0])
    settings = {"num_layers": 1, "lora_parameters": {"rank": 2, "scale": 20.0}}
    (folder / ADAPTER[1]).write_text(json.dumps(settings))
    return folder


def quantise(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | settings))


def test_source_and_name_are_enough(desk: Bench) -> None:
    answer = desk.client.submit("convert", {"model": "m", "to": "new"})

    job = desk.client.job(answer["id"])

    assert job["state"] == "queued"
    assert answer["notes"] == [f"the model will be called {desk.folder.name}/new"]
    seed = job["spec"].pop("seed")
    assert isinstance(seed, int)
    assert job["spec"] == {
        "model": "m",
        "to": "new",
        "quantize": None,
        "group_size": None,
        "dtype": None,
        "dequantize": False,
        "fuse": None,
    }


def test_the_schema_has_the_kind(desk: Bench) -> None:
    properties = desk.client.schema()["kinds"]["convert"]["properties"]
    assert properties["model"]["option"] == "SRC"
    assert properties["quantize"]["anyOf"][0]["enum"][:3] == ["2", "3", "4"]


@pytest.mark.parametrize("there", ["a model", "an empty folder", "a file", "a broken link"])
def test_what_is_there_is_not_written_over(desk: Bench, there: str) -> None:
    path = desk.folder / "new"
    desk.folder.mkdir()
    if there == "a model":
        shutil.copytree(desk.models / "m", path)
    elif there == "an empty folder":
        path.mkdir()
    elif there == "a file":
        path.touch()
    else:
        path.symlink_to(desk.folder / "nowhere")

    error = desk.refused()

    assert error.message == (
        f"to = 'new': {desk.folder.name}/new is there already, at {path}, and nothing is written "
        "over"
    )
    assert error.field == "to"
    away = (
        f"studioq models rm {desk.folder.name}/new" if there == "a model" else f"move {path} away"
    )
    assert error.remedy == f"choose another --to, or remove it first: {away}"


def test_a_model_of_another_form_has_the_name_too(desk: Bench) -> None:
    desk.folder.mkdir()
    (desk.folder / "new.gguf").write_bytes(b"GGUF")
    assert f"at {desk.folder / 'new.gguf'}" in desk.refused().message


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_user_whose_folder_is_none_is_told_so(desk: Bench, tmp_path: Path, kind: str) -> None:
    if kind == "file":
        desk.folder.touch()
    else:
        desk.folder.symlink_to(tmp_path)
    error = desk.refused()
    assert f"would be written into {desk.folder}, which is no folder" in error.message


@pytest.mark.parametrize("second", ["new", "NEW"])
def test_a_name_that_a_live_job_will_write_is_taken(desk: Bench, second: str) -> None:
    first = desk.convert(hold=True)

    error = desk.refused(second)

    assert error.message == f"to = '{second}': job {first}, which is held, writes that model"
    assert error.remedy == f"choose another --to, or end that job: studioq cancel {first}"
    desk.client.cancel(first)
    desk.convert(second)


def test_of_two_checked_at_once_one_is_written(desk: Bench) -> None:
    person = desk.stage.service.people.person(desk.uid)
    body = {"kind": "convert", "spec": {"model": "m", "to": "new"}}
    drafts = [desk.stage.service.desk.check(person, body) for _ in range(2)]

    def write(draft: Draft) -> Submitted:
        done: Submitted = desk.stage.writer.write(partial(draft.write, now=NOW))
        return done

    write(drafts[0])
    with pytest.raises(SpecRefusedError, match="job 1, which is queued, writes that model"):
        write(drafts[1])
    assert desk.client.jobs()["total"] == 1


def test_two_users_may_give_the_same_name(desk: Bench, stranger: Any) -> None:
    desk.convert()
    body = {"kind": "convert", "spec": {"model": "m", "to": "new"}}
    answer = stranger.ask("POST", "/jobs", body)
    assert answer.status == 201
    folder = user_folder(account_name(stranger.uid), stranger.uid)
    assert answer.json["notes"] == [f"the model will be called {folder}/new"]


@pytest.mark.parametrize(
    ("settings", "how"),
    [
        (FOUR_BITS, "with 4 bits"),
        (FOUR_BITS | {"lm_head": {"group_size": 64, "bits": 6}}, "with 4 to 6 bits"),
        (True, "with a number of bits that its config.json does not name"),
    ],
)
def test_quantising_what_is_quantised_needs_to_be_asked_for(
    desk: Bench, settings: object, how: str
) -> None:
    quantise(desk.models / "m", quantization=settings)

    error = desk.refused(quantize="8")

    assert error.message.startswith(f"quantize = '8': m is already quantized {how}, and what is")
    assert "add --dequantize" in str(error.remedy)
    assert error.field == "quantize"
    desk.convert(quantize="8", dequantize=True)
    desk.convert("plain", dequantize=True)
    desk.convert("copy", dtype="fp16")


def test_the_types_of_a_gguf_file_say_whether_it_is_quantised(desk: Bench) -> None:
    shutil.rmtree(desk.models / "m")
    names = ("token_embd.weight", "output.weight")
    tensors = {
        name: (dtype, (256, 256)) for name, dtype in zip(names, ("Q8_0", "Q4_1"), strict=True)
    }
    write_gguf(desk.models / "m.gguf", tensors)
    error = desk.refused(quantize="4")
    assert error.message.startswith("quantize = '4': m is already quantized as Q4_1, Q8_0, and")
    desk.convert(quantize="4", dequantize=True)
    write_gguf(desk.models / "m.gguf", dict.fromkeys(names, ("F16", (8, 32))))
    desk.convert("eight", quantize="8")
    assert desk.refused("plain", dequantize=True).message.endswith("m is not quantized")


def test_what_is_not_quantised_is_not_dequantised(desk: Bench) -> None:
    error = desk.refused(dequantize=True)
    assert error.message == "dequantize = True: m is not quantized"
    quantise(desk.models / "m", quantization_config={"quant_method": "awq"})
    desk.convert(dequantize=True)


def test_an_image_model_is_refused(desk: Bench) -> None:
    write_image_folder(desk.models / "shapes")
    with pytest.raises(SpecRefusedError, match="and convert needs a language model"):
        desk.client.submit("convert", {"model": "shapes", "to": "new"})


def test_an_adapter_still_in_training_is_waited_for(desk: Bench) -> None:
    training = desk.train()

    number = desk.convert(fuse=f"job:{training}@50")

    job = desk.client.job(number)
    assert (job["state"], job["after"]) == ("waiting", [training])
    files = (File(name=name, kind="adapter", bytes=2, sha256="a" * 64) for name in ADAPTER)
    desk.run(training, AttemptState.SUCCEEDED, *files)
    assert desk.client.job(desk.convert("other", fuse=f"job:{training}"))["state"] == "queued"


def test_an_adapter_of_another_model_is_refused(desk: Bench) -> None:
    shutil.copytree(desk.models / "m", desk.models / "n")
    training = desk.train()
    with pytest.raises(SpecRefusedError) as caught:
        desk.client.submit("convert", {"model": "n", "to": "new", "fuse": f"job:{training}"})
    assert caught.value.message.startswith(f"fuse = 'job:{training}': job {training} trains m")
    assert str(caught.value.remedy).startswith("convert m, or an adapter of n; ")


def test_an_adapter_travels_by_hash(desk: Bench, tmp_path: Path) -> None:
    given = desk.client.adapter(str(write_adapter(tmp_path)))
    fused = desk.client.job(desk.convert(fuse=given))["spec"]["fuse"]
    assert [fused[part]["name"] for part in ("weights", "config")] == list(ADAPTER)


def test_an_adapter_that_does_not_fit_is_refused_at_once(desk: Bench, tmp_path: Path) -> None:
    given = desk.client.adapter(str(write_adapter(tmp_path, inputs=65)))
    refused = desk.refused(fuse=given)
    assert refused.field == "fuse"
    assert "has the shape 65x2, and that layer of m has 64 inputs" in refused.message
    with pytest.raises(SpecRefusedError, match="adapter: the adapter does not fit the model"):
        desk.client.submit("infer", {"model": "m", "prompt": "x", "adapter": given})


def test_a_job_on_a_model_that_is_being_made_waits_for_it(desk: Bench) -> None:
    making = desk.convert()
    ask = partial(desk.client.submit, "infer")

    number = ask({"model": f"{desk.folder.name}/new", "prompt": "x"})["id"]

    job = desk.client.job(number)
    assert (job["state"], job["after"]) == ("waiting", [making])
    assert job["reason"] == f"waits for job {making}"
    desk.make(making)
    assert desk.client.job(number)["state"] == "queued"
    again = ask({"model": f"{desk.folder.name}/new", "prompt": "x"})["id"]
    assert desk.client.job(again)["after"] == []


def test_a_repeat_is_compared_with_what_the_first_has_made(desk: Bench) -> None:
    first = desk.convert()
    desk.make(first)
    assert "is there already" in desk.refused().message

    second = desk.client.repeat(first)["id"]
    desk.make(second)
    third = desk.client.repeat(second)["id"]
    desk.make(third, sha256="b" * 64)

    assert desk.client.job(second)["identical"] is True
    assert desk.client.job(third)["identical"] is False


def test_a_repeat_of_what_was_not_made_finds_the_name_taken(desk: Bench) -> None:
    first = desk.convert()
    desk.run(first, AttemptState.FAILED)
    assert desk.client.job(first)["state"] == "failed"
    desk.folder.mkdir()
    shutil.copytree(desk.models / "m", desk.folder / "new")

    with pytest.raises(SpecRefusedError, match="is there already"):
        desk.client.repeat(first)
    assert desk.client.retry(first)["state"] == "queued"


def test_the_model_can_be_fetched_as_a_folder(desk: Bench, tmp_path: Path) -> None:
    number = desk.convert()
    digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    desk.make(number, sha256=digest)
    (fetched,) = desk.client.fetch(number, ["model"], to=tmp_path / "out")
    assert fetched.path == tmp_path / "out" / "model" / "config.json"
    assert fetched.path.read_bytes() == b"{}"


def test_the_command_submits_what_it_was_given_and_says_the_name(
    desk: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["convert", "m", "--to", "new", "--quantize", "4", "--group-size", "32"]
    socket = ["--socket", str(desk.stage.paths.socket)]

    assert main([*words, "--dtype", "fp16", *socket]) == 0

    out, err = capsys.readouterr()
    spec = desk.client.job(int(out))["spec"]
    assert (spec["quantize"], spec["group_size"], spec["dtype"]) == ("4", 32, "fp16")
    assert f"note: the model will be called {desk.folder.name}/new" in err
    assert main(["convert", "m", "--to", "me/new", *socket]) == 2
    assert "remedy: give the last part alone: --to new" in capsys.readouterr().err


def test_a_line_says_what_is_made_and_since_when_it_runs(desk: Bench) -> None:
    number = desk.convert()
    (queued,) = desk.client.jobs()["jobs"]
    assert (queued["to"], queued["attempt_started_at"]) == ("new", None)
    with desk.stage.ledger.writing() as session:
        attempts.claim(session, number, worker="w", device="cpu", now=NOW)
    assert desk.client.job(number)["attempt_started_at"] == "2027-01-15T08:00:00.000Z"
    desk.train()
    assert desk.client.jobs(kind="train")["jobs"][0]["to"] is None


def test_a_typo_behind_a_user_s_name_is_not_looked_for_elsewhere(desk: Bench) -> None:
    desk.make(desk.convert("mistral-4bit"), "mistral-4bit")
    name = f"{desk.folder.name}/mistral-4bti"
    with pytest.raises(SpecRefusedError) as refused:
        desk.client.submit("infer", {"model": name, "prompt": "x"})
    assert f"did you mean {desk.folder.name}/mistral-4bit?" in refused.value.message
    assert "not looked for on Hugging Face" in str(refused.value.remedy)


def test_an_adapter_is_used_with_a_copy_of_its_model(desk: Bench) -> None:
    trained = desk.train()
    for to, source, fuse in (("copy", "m", None), ("again", "copy", None), ("sql", "m", "job:1")):
        desk.make(desk.convert(to), to)
        name = source if source == "m" else f"{desk.folder.name}/{source}"
        made = {"job": 1, "source": name, "spec": {"fuse": fuse}}
        (desk.folder / to / "conversion.json").write_text(json.dumps(made))

    def ask(to: str) -> int:
        spec = {"model": f"{desk.folder.name}/{to}", "prompt": "x", "adapter": f"job:{trained}"}
        return desk.client.submit("infer", spec)["id"]

    assert desk.client.job(ask("copy"))["after"] == [trained]
    assert desk.client.job(ask("again"))["after"] == [trained]
    with pytest.raises(SpecRefusedError, match=f"job {trained} trains m") as refused:
        ask("sql")
    assert f"studioq fetch {trained}, then --adapter job-{trained}" in str(refused.value.remedy)


def test_a_failed_conversion_whose_name_is_taken_is_not_told_to_choose_another(
    desk: Bench,
) -> None:
    failed = desk.convert()
    desk.run(failed, AttemptState.FAILED)
    desk.make(desk.convert())
    with pytest.raises(SpecRefusedError, match="is there already") as refused:
        desk.client.repeat(failed)
    assert refused.value.remedy == (
        f"remove it first: studioq models rm {desk.folder.name}/new; or submit job {failed} anew, "
        "with another --to"
    )
