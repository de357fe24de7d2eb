"""What jobs say while the engine waits for a GPU that another home has."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daemon.access import Person
from daemon.ledger import attempts, details, queries
from daemon.ledger.store import Ledger
from daemon.ledger.workers import GPU_HELD, LETS_GO, end_worker, report_worker
from workers.engine.gpu_lock import GpuLock

NOW = 1_000_000.0
Submit = Callable[..., int]
ANN = Person(uid=501, name="user501", admin=False)
HELD = f"{GPU_HELD} process 7 of user bo (home /homes/bo)"


def report(ledger: Ledger, state: str, reason: str | None, name: str = "w") -> None:
    engine = {"state": state, "reason": reason}
    with ledger.writing() as session:
        report_worker(session, name=name, pid=1, started_at=NOW, engine=engine, now=NOW)


def shown(ledger: Ledger, number: int) -> Any:
    with ledger.reading() as session:
        page = details.show_job(session, number, ANN, now=NOW)
        lines = queries.list_jobs(session, ANN, queries.Filter(), now=NOW)["jobs"]
    (line,) = [line for line in lines if line["id"] == number]
    assert line["reason"] == page["reason"]
    return page["reason"]


def test_a_queued_job_says_who_has_the_gpu_and_what_to_do(ledger: Ledger, submit: Submit) -> None:
    number, held = submit(), submit(hold=True)
    assert shown(ledger, number) is None
    report(ledger, "waiting", HELD)
    assert shown(ledger, number) == f"{HELD}; {LETS_GO}"
    assert shown(ledger, held) == "held by its user"
    report(ledger, "ready", None)
    assert shown(ledger, number) is None


def test_another_reason_to_wait_is_told_as_it_is(ledger: Ledger, submit: Submit) -> None:
    number = submit()
    report(ledger, "waiting", "the GPU lock is a link; have an admin remove it")
    assert shown(ledger, number) == "the GPU lock is a link; have an admin remove it"


def test_a_running_job_and_a_worker_that_has_ended_say_nothing(
    ledger: Ledger, submit: Submit
) -> None:
    number, running = submit(), submit()
    report(ledger, "waiting", HELD)
    with ledger.writing() as session:
        attempts.claim(session, running, worker="w", device="cpu", now=NOW)
        assert details.show_job(session, running, ANN, now=NOW)["reason"] is None
        end_worker(session, "w", now=NOW)
    assert shown(ledger, number) is None


def test_the_engine_says_it_in_these_words(tmp_path: Path) -> None:
    path, heard = tmp_path / "gpu-0.lock", threading.Event()
    sentences: list[str] = []

    def listen(sentence: str) -> None:
        sentences.append(sentence)
        heard.set()

    path.touch()
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(
            target=GpuLock.acquire, args=(path,), kwargs={"home": tmp_path, "report": listen}
        )
        waiting.start()
        assert heard.wait(30)
    waiting.join(30)
    assert sentences[0].startswith(GPU_HELD)
