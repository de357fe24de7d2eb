"""The engine as the worker meets it: a real process, a real socket, real signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from daemon.processes import is_alive
from workers.engine.handle import EngineProcess
from workers.engine.link import EXIT_PROTOCOL
from workers.events import Artifact, Checkpoint, Metric, Progress
from workers.protocol import Alive, Ask, Evict, Happened, Message, Over, Quit, Ready, Start

M = TypeVar("M")
PATIENCE = 120.0
HASH = "0" * 64


@dataclass
class Bench:
    """One engine under test, and everything it has said."""

    process: EngineProcess
    folder: Path
    said: list[Message]

    def hear(self) -> None:
        assert self.process.wait_readable(PATIENCE), "the engine is silent"
        self.said += self.process.receive()

    def until(self, kind: type[M], condition: Callable[[M], bool] = lambda _: True) -> M:
        """Return the first message that fits, of those heard and those to come."""
        while True:
            for message in self.said:
                if isinstance(message, kind) and condition(message):
                    return message
            log = self.folder / "engine.log"
            assert not self.process.ended, f"{self.process.describe_exit()}\n{log.read_text()}"
            self.hear()

    def over(self, attempt: int) -> Over:
        return self.until(Over, lambda end: end.attempt == attempt)

    def progress(self, attempt: int, least: int = 0) -> Progress:
        found = self.until(
            Happened,
            lambda message: (
                message.attempt == attempt
                and isinstance(message.event, Progress)
                and message.event.done >= least
            ),
        ).event
        assert isinstance(found, Progress)
        return found

    def start(
        self,
        attempt: int,
        *,
        kind: str = "noop",
        given: Mapping[str, Any] | None = None,
        **spec: object,
    ) -> Path:
        """Start a job; ``given`` are the paths that the worker would resolve."""
        folder = self.folder / f"attempt-{attempt}"
        folder.mkdir()
        self.process.send(
            Start(
                attempt=attempt,
                job=attempt,
                number=1,
                kind=kind,
                spec={"seed": 1, **spec},
                folder=str(folder),
                **(given or {}),
            )
        )
        return folder

    def events(self, attempt: int) -> list[object]:
        return [
            message.event
            for message in self.said
            if isinstance(message, Happened) and message.attempt == attempt
        ]


Spawn = Callable[[], Bench]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Start engines that share a GPU lock; whatever is left of them ends with the test."""
    benches: list[Bench] = []

    def one() -> Bench:
        process = EngineProcess.spawn(
            locks=tmp_path / "locks",
            log=tmp_path / "engine.log",
            environment={"MLX_DISABLE_COMPILE": "1", "STUDIOQ_HOME": str(tmp_path / "home")},
        )
        benches.append(Bench(process=process, folder=tmp_path, said=[]))
        return benches[-1]

    yield one
    for bench in benches:
        bench.process.kill()
        bench.process.wait(PATIENCE)
        bench.process.close()


@pytest.fixture
def bench(spawn: Spawn) -> Bench:
    bench = spawn()
    bench.until(Ready)
    return bench


def test_a_new_engine_says_what_it_runs_on(bench: Bench) -> None:
    ready = bench.until(Ready)
    assert ready.waiting_for is None
    assert ready.device
    assert {"mlx", "mlx-lm", "python", "studioq"} <= set(ready.versions)
    assert is_alive(bench.process.pid, bench.process.started)
    assert bench.process.describe_exit() == "is still running"
    assert (bench.folder / "engine.log").stat().st_mode & 0o777 == 0o600


def test_a_job_runs_and_the_engine_stays(bench: Bench) -> None:
    for attempt in (1, 2):
        bench.start(attempt, steps=3)
        assert bench.over(attempt).state == "succeeded"
        assert Progress(done=0, total=3) in bench.events(attempt)
        assert Progress(done=3, total=3) in bench.events(attempt)


def test_it_says_that_it_lives_and_what_it_holds(bench: Bench) -> None:
    alive = bench.until(Alive, lambda alive: bool(alive.memory))
    assert set(alive.memory) == {"active", "peak", "cache", "limit"}
    assert alive.memory["limit"] > 0
    assert alive.models == ()


def test_two_attempts_live_side_by_side(bench: Bench) -> None:
    bench.start(1, steps=5000, step_seconds=0.01)
    bench.progress(1, least=1)
    bench.start(2, steps=3, step_seconds=0.01)
    assert bench.over(2).state == "succeeded"
    bench.process.send(Ask(attempt=1, request="finish"))
    assert bench.over(1).state == "succeeded"
    assert max(event.done for event in bench.events(1) if isinstance(event, Progress)) < 5000


@pytest.mark.parametrize(
    ("request_", "state"), [("cancel", "cancelled"), ("finish", "succeeded"), ("stop", "stopped")]
)
def test_a_wish_ends_a_job_within_a_step(bench: Bench, request_: str, state: str) -> None:
    bench.start(1, steps=1, step_seconds=3600)
    bench.progress(1)
    bench.process.send(Ask(attempt=77, request=request_))
    bench.process.send(Ask(attempt=1, request=request_))
    assert bench.over(1).state == state
    bench.start(2)
    assert bench.over(2).state == "succeeded"


def test_a_stopped_job_goes_on_from_its_checkpoint(bench: Bench) -> None:
    folder = bench.start(1, steps=1000, step_seconds=0.01, checkpoint_every=2)
    made = bench.until(Happened, lambda message: isinstance(message.event, Checkpoint)).event
    assert isinstance(made, Checkpoint)
    assert all((folder / name).is_file() for name in made.files)
    bench.process.send(Ask(attempt=1, request="stop"))
    assert bench.over(1).state == "stopped"
    last = [event for event in bench.events(1) if isinstance(event, Checkpoint)][-1]
    total = last.step + 3
    bench.start(2, steps=total, checkpoint_every=2, given={"checkpoint": str(folder / last.folder)})
    assert bench.over(2).state == "succeeded"
    assert bench.progress(2) == Progress(done=last.step, total=total)


def test_a_failing_job_leaves_the_engine_unharmed(bench: Bench) -> None:
    bench.start(1, steps=3, fail_at=2)
    over = bench.over(1)
    assert over.state == "failed"
    assert over.error is not None
    assert "step 2" in over.error["message"]
    bench.start(2)
    assert bench.over(2).state == "succeeded"


def test_an_engine_that_is_killed_is_seen_at_once(bench: Bench) -> None:
    os.kill(bench.process.pid, signal.SIGKILL)
    assert bench.process.wait(PATIENCE) == -signal.SIGKILL
    while not bench.process.ended:
        bench.hear()
    assert "SIGKILL" in bench.process.describe_exit()
    assert "memory" in bench.process.describe_exit()
    bench.process.send(Quit())


def test_an_abort_is_told_from_a_kill(bench: Bench) -> None:
    os.kill(bench.process.pid, signal.SIGABRT)
    bench.process.wait(PATIENCE)
    assert "aborted (SIGABRT)" in bench.process.describe_exit()
    assert not bench.process.ran_out_of_memory()


def test_the_drivers_last_words_tell_what_the_abort_was(bench: Bench) -> None:
    with (bench.folder / "engine.log").open("a") as log:
        log.write("[METAL] Command buffer execution failed: Insufficient Memory (00000008)\n")
    os.kill(bench.process.pid, signal.SIGABRT)
    bench.process.wait(PATIENCE)
    assert bench.process.ran_out_of_memory()
    assert bench.process.describe_exit() == "was ended by SIGABRT: the GPU had no memory left"


def test_a_stopped_engine_blocks_nobody_and_can_be_killed(bench: Bench) -> None:
    os.kill(bench.process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, bench.process.pid, os.WSTOPPED | os.WNOWAIT)
    bench.process.receive()
    for attempt in range(3):
        bench.start(attempt, given={"model": "x" * 1_000_000})
    bench.process.send(Quit())
    assert bench.process.receive() == []
    assert not bench.process.wait_readable(0.0)
    bench.process.kill()
    assert bench.process.wait(PATIENCE) == -signal.SIGKILL
    assert bench.process.describe_exit() == "was killed by its worker (SIGKILL)"


def test_a_large_message_arrives_whole(bench: Bench) -> None:
    bench.start(1, given={"model": "x" * 3_000_000})
    assert bench.over(1).state == "succeeded"


def test_the_engine_ends_with_its_worker_in_the_midst_of_a_job(bench: Bench) -> None:
    bench.start(1, steps=1, step_seconds=3600, deaf=True)
    bench.progress(1)
    bench.process.close()
    assert bench.process.wait(PATIENCE) == 0


def test_an_engine_told_to_quit_ends_well(bench: Bench) -> None:
    bench.start(1, steps=1, step_seconds=3600)
    bench.progress(1)
    bench.process.send(Evict())
    bench.process.send(Quit())
    assert bench.process.wait(PATIENCE) == 0
    assert bench.process.describe_exit() == "ended"


def test_sigterm_lets_the_job_reach_a_checkpoint(bench: Bench) -> None:
    bench.start(1, steps=1000, step_seconds=0.01, checkpoint_every=1000)
    bench.progress(1, least=1)
    os.kill(bench.process.pid, signal.SIGTERM)
    assert bench.over(1).state == "stopped"
    assert [event for event in bench.events(1) if isinstance(event, Checkpoint)]
    assert bench.process.wait(PATIENCE) == 0


def test_the_terminals_signals_are_left_to_the_worker(bench: Bench) -> None:
    for ignored in (signal.SIGINT, signal.SIGHUP):
        os.kill(bench.process.pid, ignored)
    bench.start(1)
    assert bench.over(1).state == "succeeded"


def test_a_second_engine_waits_and_says_for_whom(spawn: Spawn) -> None:
    first = spawn()
    first.until(Ready)
    second = spawn()
    waiting = second.until(Ready)
    assert waiting.waiting_for is not None
    assert f"process {first.process.pid} of user" in waiting.waiting_for
    assert str(first.folder / "home") in waiting.waiting_for
    second.until(Alive)
    os.kill(first.process.pid, signal.SIGKILL)
    assert second.until(Ready, lambda ready: ready.waiting_for is None).device


def test_a_waiting_engine_ends_with_its_worker(spawn: Spawn) -> None:
    spawn().until(Ready)
    second = spawn()
    second.until(Ready)
    second.process.close()
    assert second.process.wait(PATIENCE) == 0


def test_mlx_is_not_imported_before_the_lock_is_held(spawn: Spawn) -> None:
    spawn().until(Ready)
    second = spawn()
    second.until(Ready)
    maps = {item.path for item in psutil.Process(second.process.pid).memory_maps()}
    assert not [path for path in maps if "mlx" in path]


def test_a_lock_that_cannot_be_used_is_said_and_waited_for(tmp_path: Path, spawn: Spawn) -> None:
    (tmp_path / "locks").mkdir()
    planted = tmp_path / "locks" / "gpu-0.lock"
    planted.symlink_to(tmp_path / "elsewhere")
    bench = spawn()
    assert "is a link" in str(bench.until(Ready).waiting_for)
    planted.unlink()
    assert bench.until(Ready, lambda ready: ready.waiting_for is None).device


@pytest.mark.parametrize("line", [b"{}", b"nonsense", b"[1]", b'{"is": "Start"}', b'{"is": []}'])
def test_the_engine_gives_up_on_a_line_it_cannot_read(bench: Bench, line: bytes) -> None:
    with socket.socket(fileno=os.dup(bench.process.fileno())) as side:
        side.sendall(line + b"\n")
    assert bench.process.wait(PATIENCE) == EXIT_PROTOCOL
    assert "not a message" in (bench.folder / "engine.log").read_text()


def test_the_handle_refuses_a_line_it_cannot_read(bench: Bench) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        bench.process._socket.close()
        bench.process._socket = ours
        theirs.sendall(b'{"is":"Alive","memory":{},"models":[]}\n{"is":"Over","attempt":')
        assert bench.process.receive() == [Alive()]
        theirs.sendall(b"NaN}\n")
        with pytest.raises(ValueError, match="not a message"):
            bench.process.receive()


def test_by_hand_it_says_who_starts_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from workers.engine.main import main; raise SystemExit(main([]))"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "studioq-worker" in done.stderr


def test_the_engine_holds_nothing_of_its_workers_open(spawn: Spawn) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    bench = spawn()
    bench.until(Ready)
    os.close(writing)
    os.set_blocking(reading, False)
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_the_worker_can_use_the_handle_without_mlx() -> None:
    program = "import sys, workers.engine.handle; raise SystemExit('mlx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_two_trainings_side_by_side_end_as_they_do_alone(bench: Bench, tiny_model: Path) -> None:
    rows = bench.folder / "rows.jsonl"
    texts = [f"{word} {count} {word}s" for count in range(2, 9) for word in ("cat", "oak")]
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    def train(attempt: int, seed: int) -> Path:
        return bench.start(
            attempt,
            kind="train",
            given={"model": str(tiny_model), "inputs": {"data.rows": str(rows)}},
            model="tiny",
            data={"rows": {"name": "rows.jsonl", "sha256": HASH}},
            seed=seed,
            iters=6,
            batch_size=3,
            dropout=0.2,
            learning_rate=1e-3,
            num_layers=2,
            max_seq_length=64,
            steps_per_eval=3,
        )

    def adapter(attempt: int) -> bytes:
        over = bench.over(attempt)
        assert over.state == "succeeded", over.error
        found = [event for event in bench.events(attempt) if isinstance(event, Artifact)]
        path = next(event.path for event in found if event.path.endswith("adapters.safetensors"))
        return (bench.folder / f"attempt-{attempt}" / path).read_bytes()

    for attempt, seed in ((1, 1), (2, 2)):
        train(attempt, seed)
        bench.over(attempt)
    for attempt, seed in ((3, 1), (4, 2)):
        train(attempt, seed)
    assert adapter(1) == adapter(3)
    assert adapter(2) == adapter(4)
    assert adapter(1) != adapter(2)
    order = [message.attempt for message in bench.said if isinstance(message, Happened)]
    first_of_4 = order.index(4)
    assert 3 in order[first_of_4:]
    assert bench.over(3).peak_memory_bytes
    warm = bench.until(Alive, lambda alive: bool(alive.models)).models
    assert warm == (str(tiny_model.resolve()),)


def test_a_peak_is_the_jobs_own_whatever_else_is_kept_warm(
    bench: Bench, tiny_model: Path, make_tiny_model: Callable[..., Path]
) -> None:
    other = make_tiny_model(bench.folder / "other", seed=3)

    def infer(attempt: int, model: Path, **given: str) -> int:
        paths = {"model": str(model), **given}
        bench.start(
            attempt, kind="infer", given=paths, model="tiny", prompt="Hi", temp=0, max_tokens=4
        )
        peak = bench.over(attempt).peak_memory_bytes
        assert peak is not None
        return peak

    cold = infer(1, other)
    assert infer(2, tiny_model) == pytest.approx(cold, rel=0.2)
    warm = infer(3, other)
    assert warm == pytest.approx(cold, rel=0.2)
    metrics = [event for event in bench.events(3) if isinstance(event, Metric)]
    assert metrics[-1].values["peak_memory_bytes"] == pytest.approx(warm, rel=0.2)
    assert len(bench.until(Alive, lambda alive: len(alive.models) == 2).models) == 2
    failed = infer(4, bench.folder / "absent")
    assert bench.over(4).state == "failed"
    assert failed < cold / 10
