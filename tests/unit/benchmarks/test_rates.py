from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from benchmarks.rates import Cell, Plan, measure


@dataclass
class Clock:
    """Time that passes when somebody works."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Worker:
    """A contender that takes ``seconds`` for a batch, and writes down when it is called."""

    name: str
    clock: Clock
    seconds: float
    diary: list[str]
    breaks_at: int | None = None
    peaks: list[int] = field(default_factory=lambda: [1000])

    def prepare(self, batch: int) -> None:
        self.diary.append(f"{self.name} prepares {batch}")
        self.clock.now += 10 * self.seconds

    def run(self, batch: int) -> None:
        if self.breaks_at == batch:
            raise RuntimeError("CUDA out of memory\nand more")
        self.diary.append(self.name)
        self.clock.now += self.seconds

    def few(self, batch: int, steps: int) -> None:
        raise NotImplementedError

    def peak_bytes(self) -> int | None:
        return self.peaks[0]

    def release(self) -> None:
        raise NotImplementedError


def test_contenders_take_turns_in_changing_order() -> None:
    clock, diary = Clock(), list[str]()
    both = [Worker("a", clock, 1.0, diary), Worker("b", clock, 2.0, diary)]
    cells = measure(both, 4, Plan(steps=10, rounds=3), clock)
    assert diary == ["a prepares 4", "b prepares 4", "a", "b", "b", "a", "a", "b"]
    assert [cell.rate for cell in cells] == [40.0, 20.0]
    assert [cell.warm_up_seconds for cell in cells] == [10.0, 20.0]
    assert [cell.peak_bytes for cell in cells] == [1000, 1000]


def test_rounds_go_on_until_the_seconds_of_all_are_spent() -> None:
    clock = Clock()
    both = [Worker("a", clock, 1.0, []), Worker("b", clock, 1.0, [])]
    cells = measure(both, 1, Plan(steps=1, rounds=1, seconds=5.0), clock)
    assert [len(cell.samples) for cell in cells] == [5, 5]


def test_who_fails_has_no_rate_and_the_others_go_on() -> None:
    clock = Clock()
    both = [Worker("a", clock, 1.0, [], breaks_at=2), Worker("b", clock, 1.0, [])]
    failed, whole = measure(both, 2, Plan(steps=3, rounds=2), clock)
    assert failed.rate is None
    assert failed.spread is None
    assert failed.failure == "RuntimeError: CUDA out of memory"
    assert whole.samples == (6.0, 6.0)


def test_measuring_ends_when_all_have_failed() -> None:
    clock = Clock()
    (cell,) = measure(
        [Worker("a", clock, 1.0, [], breaks_at=1)], 1, Plan(steps=1, seconds=99), clock
    )
    assert cell.samples == ()


def test_the_spread_is_that_of_the_farthest_sample() -> None:
    cell = Cell(name="a", batch=1, samples=(9.0, 10.0, 12.0))
    assert cell.rate == 10.0
    assert cell.spread == pytest.approx(0.2)
    assert cell.to_dict()["step_images_per_second"] == 10.0
