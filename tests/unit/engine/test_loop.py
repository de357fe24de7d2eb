from __future__ import annotations

import errno
import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import pytest

from daemon.errors import JobError, NonFiniteError, OutOfMemoryError
from daemon.ledger.states import AttemptState
from workers.engine.loop import Terminate
from workers.engine.outcomes import End
from workers.events import Artifact, Event, Log, Metric, Progress, SafePoint, Stopped
from workers.kinds import Context, Request
from workers.protocol import Ask, Evict, Happened, Over, Quit, Start

if TYPE_CHECKING:
    from tests.unit.engine.conftest import Engine


def three_steps(context: Context) -> Iterator[Event]:
    for step in range(3):
        yield Metric(step=step, values={"job": context.job})


def until_asked(context: Context) -> Iterator[Event]:
    yield Log(text="running")
    while context.control.request is None:
        yield SafePoint()
    yield Log(text=f"asked to {context.control.request}")
    if context.control.request is Request.STOP:
        yield Stopped()
        yield Log(text="never reached")


def test_every_end_is_one_of_the_ledgers() -> None:
    assert {end.value for end in End} <= {state.value for state in AttemptState}


def test_the_places_in_a_start_are_those_of_the_job(engine: Engine) -> None:
    seen: list[Path | None] = []

    def look(context: Context) -> Iterator[Event]:
        seen.extend((context.model, context.adapter, context.checkpoint, context.target))
        yield SafePoint()

    engine.script(look)
    engine.started += 1
    start = Start(attempt=1, job=1, number=1, kind="noop", spec={}, folder="/f")
    engine.inbox.put(replace(start, model="/m", adapter="/a", checkpoint="/c", target="/t"))
    engine.run()
    assert seen == [Path("/m"), Path("/a"), Path("/c"), Path("/t")]


def test_two_attempts_take_turns(engine: Engine) -> None:
    engine.script(three_steps)
    engine.start(1)
    engine.start(2)
    engine.run()
    order = [message.attempt for message in engine.said if isinstance(message, Happened)]
    assert order == [1, 2, 1, 2, 1, 2]
    assert engine.over(1).state == engine.over(2).state == "succeeded"


def test_an_attempt_alone_draws_the_numbers_it_draws_beside_another(engine: Engine) -> None:
    drawn: dict[tuple[str, int], list[object]] = {}

    def draw(context: Context) -> Iterator[Event]:
        numbers = drawn.setdefault((context.folder.parent.name, context.job), [])
        for _ in range(4):
            numbers.append(mx.random.normal().item())
            yield SafePoint()
            numbers.append(mx.random.uniform().item())

    engine.script(draw)
    engine.start(1)
    engine.start(2)
    engine.run()
    for attempt in (1, 2):
        alone = type(engine)(folder=engine.folder / "alone")
        alone.script(draw)
        alone.start(attempt)
        mx.random.seed(999)
        alone.run()
        assert drawn["alone", attempt] == drawn[engine.folder.name, attempt]
    assert drawn["alone", 1] != drawn["alone", 2]


@pytest.mark.parametrize(
    ("request_", "checkpoints", "state", "last"),
    [
        ("cancel", True, "cancelled", "running"),
        ("cancel", False, "cancelled", "running"),
        ("stop", False, "stopped", "running"),
        ("stop", True, "stopped", "asked to stop"),
        ("finish", True, "succeeded", "asked to finish"),
    ],
)
def test_a_wish_is_obeyed_at_the_next_safe_point(
    engine: Engine, request_: str, checkpoints: bool, state: str, last: str
) -> None:
    closed: list[str] = []

    def runner(context: Context) -> Iterator[Event]:
        try:
            engine.inbox.put(Ask(attempt=1, request=request_))
            yield from until_asked(context)
        finally:
            closed.append("cleaned up")

    engine.script(runner, checkpoints=checkpoints)
    engine.start(1)
    engine.run()
    assert engine.over(1).state == state
    assert engine.events(1)[-1] == Log(text=last)
    assert closed == ["cleaned up"]


def holding(context: Context) -> Iterator[Event]:
    """A job that holds something finished, and publishes it when it is asked to do anything."""
    context.control.unpublished = True
    yield Log(text="holding")
    while context.control.request is None:
        yield SafePoint()
    yield Log(text=f"asked to {context.control.request}")
    yield Artifact(path="held.png", kind="image")


def failing(context: Context) -> Iterator[Event]:
    yield from holding(context)
    raise JobError("too late to matter")


def stopping(context: Context) -> Iterator[Event]:
    yield from holding(context)
    yield Stopped()


@pytest.mark.parametrize("runner", [holding, failing, stopping])
def test_a_cancelled_job_publishes_what_it_holds_and_is_cancelled(
    engine: Engine, runner: Callable[[Context], Iterator[Event]]
) -> None:
    def held(context: Context) -> Iterator[Event]:
        for event in runner(context):
            if event == Log(text="holding"):
                for request in ("cancel", "finish", "stop", "cancel"):
                    engine.inbox.put(Ask(attempt=1, request=request))
            yield event

    engine.script(held, checkpoints=True)
    engine.start(1)
    engine.run()
    assert engine.over(1) == Over(
        attempt=1, state="cancelled", peak_memory_bytes=engine.over(1).peak_memory_bytes
    )
    said = [event for event in engine.events(1) if not isinstance(event, SafePoint)]
    assert said[1:] == [Log(text="asked to cancel"), Artifact(path="held.png", kind="image")]


def test_a_wish_for_an_unknown_attempt_or_of_an_unknown_sort_is_ignored(
    engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    engine.script(three_steps)
    engine.inbox.put(Ask(attempt=99, request="cancel"))
    engine.start(1)
    engine.inbox.put(Ask(attempt=1, request="dance"))
    engine.run()
    assert engine.over(1).state == "succeeded"
    assert "'dance'" in capfd.readouterr().err


def test_a_second_start_of_a_live_attempt_is_ignored(engine: Engine) -> None:
    engine.script(three_steps)
    engine.start(1)
    engine.start(1)
    engine.started = 1
    engine.run()
    assert len(engine.events(1)) == 3


def raising(error: BaseException) -> Any:
    def runner(context: Context) -> Iterator[Event]:
        yield Progress(done=0, total=1)
        raise error

    return runner


@pytest.mark.parametrize(
    ("error", "state", "code", "message"),
    [
        (JobError("row 3 is bad", remedy="mend it"), "failed", "job_failed", "row 3 is bad"),
        (NonFiniteError("loss is nan"), "failed", "non_finite", "loss is nan"),
        (OutOfMemoryError("no room"), "out_of_memory", "out_of_memory", "no room"),
        (MemoryError(), "out_of_memory", "out_of_memory", "memory ran out: MemoryError"),
        (
            RuntimeError("[malloc] Unable to allocate 5 bytes"),
            "out_of_memory",
            "out_of_memory",
            "[malloc] Unable to allocate 5 bytes",
        ),
        (OSError(errno.ENOSPC, "full", "/x/plot.png"), "failed", "disk_full", "plot.png"),
        (OSError(errno.EDQUOT, "quota"), "failed", "disk_full", "the disk is full"),
        (PermissionError(errno.EACCES, "no"), "failed", "internal", "PermissionError: "),
        (KeyError("x\ny"), "failed", "internal", "KeyError: "),
        (SystemExit(3), "failed", "internal", "SystemExit: 3"),
    ],
)
def test_what_a_job_raises_ends_it_with_one_sentence(
    engine: Engine, error: BaseException, state: str, code: str, message: str
) -> None:
    engine.script(raising(error))
    engine.start(1)
    engine.run()
    over = engine.over(1)
    assert over.state == state
    assert over.error is not None
    assert over.error["code"] == code
    assert message in over.error["message"]
    assert "\n" not in over.error["message"]
    assert engine.events(1) == [Progress(done=0, total=1)]


def test_an_unforeseen_traceback_goes_to_the_log_only(
    engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    engine.script(raising(KeyError("unforeseen")))
    engine.start(1)
    engine.run()
    assert "Traceback" in capfd.readouterr().err
    assert "Traceback" not in str(engine.said)


def test_a_number_that_is_not_finite_fails_its_attempt_alone(engine: Engine) -> None:
    def runner(context: Context) -> Iterator[Event]:
        yield Metric(step=1, values={"loss": float("nan") if context.job == 1 else 1.0})

    engine.script(runner)
    engine.start(1)
    engine.start(2)
    engine.run()
    assert engine.over(1).state == "failed"
    assert engine.over(2).state == "succeeded"


@pytest.mark.parametrize("ends", ["raises", "is cancelled", "succeeds"])
def test_nothing_of_an_ended_attempt_stays_in_memory(engine: Engine, ends: str) -> None:
    gone: list[weakref.ref[Any]] = []

    class Weights:
        def __init__(self) -> None:
            self.array = mx.zeros((1 << 18,))
            self.itself = self
            mx.eval(self.array)

    def runner(context: Context) -> Iterator[Event]:
        weights = Weights()
        gone.append(weakref.ref(weights))
        yield Log(text="holding")
        if ends == "raises":
            raise KeyError("with the weights in its frame")
        if ends == "is cancelled":
            engine.inbox.put(Ask(attempt=1, request="cancel"))
            yield SafePoint()
            yield SafePoint()

    engine.script(runner)
    engine.start(1)
    gc.collect()
    before = mx.get_active_memory()
    engine.run()
    assert gone[0]() is None
    assert mx.get_active_memory() <= before + 4096
    assert (engine.over(1).peak_memory_bytes or 0) >= 1 << 20


def test_a_kind_that_objects_to_being_closed_is_over_all_the_same(
    engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    def runner(context: Context) -> Iterator[Event]:
        engine.inbox.put(Ask(attempt=1, request="cancel"))
        try:
            yield Log(text="running")
            yield SafePoint()
        finally:
            raise ValueError("in clean-up")

    engine.script(runner)
    engine.start(1)
    engine.run()
    assert engine.over(1).state == "cancelled"
    assert "in clean-up" in capfd.readouterr().err


def test_unknown_kinds_and_specs_fail_at_the_start(engine: Engine) -> None:
    engine.script(three_steps)
    engine.start(1, kind="paint")
    engine.start(2, colour="red")
    engine.run()
    for attempt, said in ((1, "paint"), (2, "colour")):
        over = engine.over(attempt)
        assert over.state == "failed"
        assert over.error is not None
        assert said in str(over.error)


def test_sigterm_stops_what_runs_and_starts_nothing_new(engine: Engine) -> None:
    def runner(context: Context) -> Iterator[Event]:
        engine.inbox.put(Terminate())
        engine.start(2)
        yield from until_asked(context)

    engine.script(runner)
    engine.start(1)
    engine.run()
    assert engine.over(1).state == "stopped"
    assert not engine.events(2)


def test_quit_closes_what_runs_without_an_outcome(engine: Engine) -> None:
    closed: list[str] = []

    def runner(context: Context) -> Iterator[Event]:
        try:
            engine.inbox.put(Quit())
            yield from until_asked(context)
        finally:
            closed.append("cleaned up")

    engine.script(runner)
    engine.start(1)
    engine.inbox.put(Evict())
    engine.run()
    assert closed == ["cleaned up"]
    assert not [message for message in engine.said if isinstance(message, Over)]
