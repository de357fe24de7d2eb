"""The commands against a real daemon with its Redis, worker and engine, in a home of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from daemon.client import Client
from daemon.errors import ConflictError, DaemonAwayError, FileDiffersError, NotFoundError
from daemon.processes import is_alive, process_started

STUDIOQ = Path(sys.executable).with_name("studioq")
PATIENCE = 120

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True, kw_only=True)
class Home:
    """A home and the commands on it."""

    folder: Path
    environment: dict[str, str] = field(repr=False)

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "studioq.sock"

    def run(self, *words: object, stdin: str | None = None, **environment: str) -> Done:
        return subprocess.run(
            [STUDIOQ, *map(str, words)],
            env=self.environment | environment,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def data(self, *words: object, stdin: str | None = None) -> str:
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, f"{words}: {done.returncode} {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *words: object) -> Any:
        return json.loads(self.data(*words, "--json"))

    def begin(self, *words: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [STUDIOQ, *map(str, words)],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def pids(self) -> dict[int, float | None]:
        status = self.json("status")
        pids = [status["pid"], *(status[part]["pid"] for part in ("redis", "worker", "engine"))]
        return {pid: process_started(pid) for pid in pids if pid}


def make_home() -> Home:
    folder = Path(tempfile.mkdtemp(prefix="sqc", dir="/tmp"))
    environment = {
        **os.environ,
        "STUDIOQ_HOME": str(folder / "home"),
        "STUDIOQ_RUNTIME": str(folder / "run"),
        "STUDIOQ_LOCKS": str(folder / "gpu"),
        "STUDIOQ_SYSTEM_CONFIG": str(folder / "none"),
        "STUDIOQ_TEST_KINDS": "1",
    }
    for name in ("STUDIOQ_SOCKET", "HF_TOKEN", "COLUMNS"):
        environment.pop(name, None)
    return Home(folder=folder, environment=environment)


@pytest.fixture(scope="module")
def home(tiny_model: Path) -> Iterator[Home]:
    """A home whose daemon the first submission starts; stopped and removed at the end."""
    made = make_home()
    shutil.copytree(tiny_model, made.folder / "home" / "models" / "tiny")
    first = made.run("noop", "--name", "first")
    assert first.returncode == 0, first.stderr
    assert first.stdout == "1\n"
    assert f"starting a daemon for {made.folder / 'home'}" in first.stderr
    yield made
    parts = made.pids()
    assert made.run("daemon", "stop").returncode == 0
    assert [pid for pid, started in parts.items() if started and is_alive(pid, started)] == []
    shutil.rmtree(made.folder)


@pytest.fixture
def client(home: Home) -> Iterator[Client]:
    with Client(home.socket) as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(home: Home) -> Path:
    """A folder of training rows."""
    folder = home.folder / "rows"
    folder.mkdir()
    for name, count in (("train", 24), ("valid", 4)):
        text = "".join(
            json.dumps({"text": f"row {index} says so"}) + "\n" for index in range(count)
        )
        (folder / f"{name}.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="module")
def trained(home: Home, rows: Path) -> int:
    """The number of a finished training."""
    words = (
        "--model",
        "tiny",
        "--data",
        rows,
        "--iters",
        "8",
        "--save-every",
        "4",
        "--num-layers",
        "2",
    )
    return int(
        home.data("train", *words, "--steps-per-report", "4", "--name", "tiny one", "--wait")
    )


def test_the_number_is_all_there_is_on_stdout(home: Home) -> None:
    done = home.run("noop")
    assert done.stdout.strip().isdigit()
    assert done.stderr == ""
    assert set(json.loads(home.data("noop", "--json"))) == {
        "id",
        "state",
        "reason",
        "notes",
    }


def test_waiting_exits_with_the_outcome(home: Home) -> None:
    good = home.run("noop", "--steps", 2, "--wait")
    assert (good.returncode, good.stdout.strip().isdigit()) == (0, True)
    assert f"job {good.stdout.strip()} succeeded" in good.stderr
    bad = home.run("noop", "--steps", 2, "--fail-at", 1, "--wait")
    assert bad.returncode == 1
    assert f"job {bad.stdout.strip()} failed: " in bad.stderr
    both = home.run("wait", good.stdout.strip(), bad.stdout.strip(), "--json")
    assert both.returncode == 1
    assert [ending["state"] for ending in json.loads(both.stdout)] == ["succeeded", "failed"]


def test_a_timeout_leaves_the_job_running(home: Home, client: Client) -> None:
    done = home.run(
        "noop", "--steps", 10_000, "--step-seconds", 0.05, "--wait", "--timeout", "0.2s"
    )
    number = int(done.stdout)
    assert done.returncode == 5
    assert "it goes on" in done.stderr
    assert client.job(number)["ended_at"] is None
    assert home.run("wait", number, "--timeout", "0.1s").returncode == 5
    assert home.run("cancel", number).returncode == 0
    assert home.run("wait", number).returncode == 1


def test_ctrl_c_leaves_and_never_cancels(home: Home, client: Client) -> None:
    waiting = home.begin("noop", "--hold", "--wait")
    assert waiting.stdout is not None
    number = int(waiting.stdout.readline())
    waiting.send_signal(signal.SIGINT)
    _, narrated = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 130
    assert f"job {number} goes on" in narrated
    assert "Traceback" not in narrated
    assert client.job(number)["state"] == "held"
    client.cancel(number)


def test_notify_runs_here_with_the_outcome(home: Home) -> None:
    told = home.folder / "told"
    command = f'echo "$STUDIOQ_JOB $STUDIOQ_STATE" > {told}'
    number = home.data("noop", "--wait", "--notify", command).strip()
    assert told.read_text() == f"{number} succeeded\n"


def test_no_such_job(home: Home) -> None:
    for words in (
        ("show", 9999),
        ("wait", 9999),
        ("logs", 9999),
        ("fetch", 9999),
        ("cancel", 9999),
    ):
        done = home.run(*words)
        assert done.returncode == 4, words
        assert "there is no job 9999" in done.stderr


def test_one_bad_number_does_not_keep_the_others_from_being_cancelled(
    home: Home, client: Client
) -> None:
    numbers = [int(home.data("noop", "--hold")) for _ in range(2)]
    done = home.run("cancel", numbers[0], 9999, numbers[1])
    assert done.returncode == 4
    assert [client.job(number)["state"] for number in numbers] == ["cancelled", "cancelled"]


def test_a_refused_spec_names_field_value_and_reason(home: Home, rows: Path) -> None:
    done = home.run("train", "--model", "tiny", "--data", rows, "--iters", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert "iters = 0" in done.stderr
    unknown = home.run("infer", "--model", "no-such-model", "--prompt", "x")
    assert unknown.returncode == 2
    assert "'no-such-model'" in unknown.stderr
    assert "studioq models" in unknown.stderr


def test_a_bad_row_is_refused_with_its_file_and_line(home: Home) -> None:
    file = home.folder / "bad.jsonl"
    file.write_text('{"text": "good"}\n{"text": 5}\n')
    done = home.run("train", "--model", "tiny", "--data", file)
    assert done.returncode == 2
    assert "bad.jsonl" in done.stderr
    assert "2" in done.stderr


def test_queue_commands(home: Home, client: Client) -> None:
    number = int(home.data("noop", "--hold", "--name", "parked", "--begin", "+2h"))
    assert client.job(number)["state"] == "held"
    home.data("priority", number, "low")
    assert client.job(number)["priority"] == "low"
    home.data("release", number)
    assert client.job(number)["state"] == "waiting"
    home.data("hold", number)
    home.data("cancel", number)
    assert home.run("hold", number).returncode == 2
    home.data("drain")
    assert home.json("status")["draining"] is True
    assert "studioq resume" in home.data("status")
    home.data("resume")
    assert home.json("status")["draining"] is False


def test_retry_runs_a_failed_job_again_under_its_number(home: Home, client: Client) -> None:
    number = int(home.run("noop", "--steps", 1, "--fail-at", 0, "--wait").stdout)
    home.data("retry", number)
    assert home.run("wait", number).returncode == 1
    assert len(client.job(number)["attempts"]) == 2


def test_every_page_can_be_read_by_people_and_programs(home: Home, trained: int) -> None:
    listed = home.json("list", "--all", "--limit", "1000")
    assert trained in [job["id"] for job in listed["jobs"]]
    line = next(line for line in home.data("list", "--all").splitlines() if "tiny one" in line)
    assert line.split()[:3] == [str(trained), "✓", "succeeded"]
    assert [job["id"] for job in home.json("list", "--all", "--kind", "train")["jobs"]] == [trained]
    page = home.data("show", trained)
    assert f"job {trained} · train · tiny one" in page
    assert "train_loss" in page
    assert "adapters.safetensors" in page
    shown = home.json("show", trained)
    assert shown["spec"]["iters"] == 8
    assert shown["spec"]["seed"] >= 0
    assert "Iter 4: Train loss" in home.data("logs", trained)
    assert home.json("logs", trained)["text"] == home.data("logs", trained, "--follow")
    assert home.json("models", "show", "tiny")["state"] == "ready"
    assert "tiny" in home.data("models")
    assert home.data("models", "path").strip() == str(home.folder / "home" / "models")
    assert home.json("usage")[0]["jobs"] >= 1
    assert "GPU time" in home.data("usage", "--since", "-7d")
    assert home.json("daemon", "status")["pid"] == home.json("status")["pid"]


def test_fetch_brings_results_once_and_overwrites_nothing(home: Home, trained: int) -> None:
    paths = [Path(line) for line in home.data("fetch", trained).splitlines()]
    names = {str(path.relative_to(f"job-{trained}")) for path in paths}
    assert {"adapters.safetensors", "adapter_config.json", "loss.png", "metrics.jsonl"} <= names
    assert not any(name.startswith("checkpoints") for name in names)
    again = home.run("fetch", trained, "--json")
    assert not any(file["written"] for file in json.loads(again.stdout))
    (home.folder / f"job-{trained}" / "loss.png").write_bytes(b"mine")
    clash = home.run("fetch", trained)
    assert (clash.returncode, clash.stdout) == (2, "")
    assert "loss.png differs" in clash.stderr
    assert (home.folder / f"job-{trained}" / "loss.png").read_bytes() == b"mine"
    home.data("fetch", trained, "checkpoints", "--to", "there")
    assert list((home.folder / "there").rglob("adapters.safetensors"))
    assert home.run("fetch", trained, "no-such-file").returncode == 4


def test_the_fetched_adapter_can_be_given_back(home: Home, trained: int) -> None:
    home.data("fetch", trained, "--to", "mine")
    words = ("--model", "tiny", "--prompt", "row", "--max-tokens", "3", "--wait")
    by_number = home.data("infer", *words, "--adapter", f"job:{trained}")
    by_folder = home.data("infer", *words, "--adapter", "mine")
    texts = [home.data("logs", number.strip(), "--text") for number in (by_number, by_folder)]
    assert texts[0] == texts[1]


def test_following_an_inference_streams_its_text_alone(home: Home, client: Client) -> None:
    words = (
        "infer",
        "--model",
        "tiny",
        "--prompt",
        "-",
        "--raw",
        "--max-tokens",
        "8",
        "--seed",
        "1",
    )
    done = home.run(*words, "--follow", stdin="row 1 \n")
    assert done.returncode == 0, done.stderr
    number = int(done.stderr.split("job ")[1].split()[0])
    assert client.job(number)["spec"]["prompt"] == "row 1 "
    assert done.stdout == "".join(client.follow_text(number))


def test_following_a_training_shows_its_log(home: Home, rows: Path) -> None:
    words = ("--model", "tiny", "--data", rows, "--iters", "2", "--num-layers", "1")
    done = home.run("train", *words, "--steps-per-report", "1", "--follow")
    assert done.returncode == 0, done.stderr
    assert "Iter 2: Train loss" in done.stdout


def test_a_repeated_training_has_the_same_bytes(home: Home, trained: int) -> None:
    done = home.run("repeat", trained, "--wait")
    assert done.returncode == 0, done.stderr
    assert f"identical to those of job {trained}" in done.stderr


def test_an_upload_travels_once(home: Home, client: Client) -> None:
    file = home.folder / "large.bin"
    file.write_bytes(os.urandom(3 << 20))
    blob = client.upload(file)
    assert client.has_blob(blob["sha256"])
    assert client.upload(file) == blob
    assert not client.has_blob("0" * 64)


def test_the_client_can_do_what_the_commands_can(
    home: Home, client: Client, rows: Path, trained: int, tmp_path: Path
) -> None:
    data = client.training_data(rows)
    assert set(data) == {"train", "valid"}
    spec = {"model": "tiny", "data": data, "iters": 1, "num_layers": 1}
    job = client.submit("train", spec, name="from python", hold=True)
    assert job["state"] == "held"
    client.release(job["id"])
    assert client.wait(job["id"])["state"] == "succeeded"
    assert {metric["name"] for metric in client.metrics(job["id"])} >= {"train_loss"}
    assert client.events(job["id"])[0]["actor"] == client.status()["me"]["name"]
    file = client.download(trained, "adapters.safetensors", tmp_path / "a.safetensors")
    assert file.stat().st_size > 0
    with pytest.raises(FileDiffersError):
        client.download(trained, "adapters.safetensors", file)
    with pytest.raises(NotFoundError):
        client.job(9999)
    with pytest.raises(ConflictError, match="has no results"):
        client.fetch(1, to=tmp_path)
    assert "train" in client.schema()["kinds"]


def test_job_numbers_are_completed(home: Home, trained: int) -> None:
    asked = {"COMP_WORDS": f"studioq show {trained}", "COMP_CWORD": "2"}
    done = home.run(_STUDIOQ_COMPLETE="bash_complete", **asked)
    assert f"plain,{trained}" in done.stdout.splitlines()
    models = {"COMP_WORDS": "studioq infer --model ti", "COMP_CWORD": "3"}
    done = home.run(_STUDIOQ_COMPLETE="bash_complete", **models)
    assert "plain,tiny" in done.stdout.splitlines()


def test_a_restart_disturbs_neither_the_job_nor_who_waits(home: Home, client: Client) -> None:
    before = home.json("status")
    waiting = home.begin("noop", "--steps", "40", "--step-seconds", "0.1", "--wait")
    assert waiting.stdout is not None
    number = int(waiting.stdout.readline())
    restarted = home.run("daemon", "restart")
    assert restarted.returncode == 0, restarted.stderr
    after = home.json("status")
    assert after["pid"] != before["pid"]
    assert after["worker"]["pid"] == before["worker"]["pid"]
    _, narrated = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 0, narrated
    assert len(client.job(number)["attempts"]) == 1


def test_starting_what_runs_changes_nothing(home: Home) -> None:
    before = home.json("status")["pid"]
    assert "runs already" in home.run("daemon", "start").stderr
    assert home.json("status")["pid"] == before


def test_doctor_answers(home: Home) -> None:
    found = home.run("doctor", "--json")
    assert json.loads(found.stdout)["findings"]
    assert found.returncode == int(not json.loads(found.stdout)["ok"])


def test_of_many_first_commands_one_starts_the_daemon() -> None:
    alone = make_home()
    commands = [alone.begin("noop", "--hold") for _ in range(4)]
    ends = [command.communicate(timeout=PATIENCE) for command in commands]
    assert sorted(int(out) for out, _ in ends) == [1, 2, 3, 4]
    assert sum("starting a daemon" in err for _, err in ends) == 1
    parts = alone.pids()
    assert alone.run("daemon", "stop").returncode == 0
    assert [pid for pid, started in parts.items() if started and is_alive(pid, started)] == []
    assert alone.run("list").returncode == 3
    shutil.rmtree(alone.folder)


def test_autostart_can_be_turned_off() -> None:
    alone = make_home()
    (alone.folder / "home").mkdir()
    (alone.folder / "home" / "config.toml").write_text("autostart = false\n")
    done = alone.run("noop")
    assert done.returncode == 3
    assert "studioq daemon start" in done.stderr
    with pytest.raises(DaemonAwayError):
        Client(alone.socket).status()
    shutil.rmtree(alone.folder)


def test_a_daemon_that_cannot_start_says_why() -> None:
    alone = make_home()
    (alone.folder / "home").mkdir()
    (alone.folder / "home" / "config.toml").write_text("model_budgets = 1\n")
    done = alone.run("noop")
    assert done.returncode == 3
    assert "there is no key 'model_budgets'" in done.stderr
    shutil.rmtree(alone.folder)


def test_stop_also_ends_what_a_killed_daemon_has_left() -> None:
    alone = make_home()
    assert alone.run("daemon", "start").returncode == 0
    parts = alone.pids()
    (daemon,) = [pid for pid in parts if pid == alone.json("status")["pid"]]
    os.kill(daemon, signal.SIGKILL)
    stopped = alone.run("daemon", "stop")
    assert stopped.returncode == 0, stopped.stderr
    assert "still runs" in stopped.stderr
    assert [pid for pid, started in parts.items() if started and is_alive(pid, started)] == []
    shutil.rmtree(alone.folder)


def test_a_daemon_in_the_foreground_ends_with_all_it_started_at_ctrl_c() -> None:
    alone = make_home()
    running = alone.begin("daemon", "run")
    assert running.stderr is not None
    assert any("action=ready" in line for line in running.stderr)
    alone.data("noop", "--wait")
    parts = alone.pids()
    assert running.pid in parts
    running.send_signal(signal.SIGINT)
    _, narrated = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, narrated
    assert [pid for pid, started in parts.items() if started and is_alive(pid, started)] == []
    shutil.rmtree(alone.folder)
