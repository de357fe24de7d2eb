from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.overlaps import Overlap, amount_for, fastest_seconds, line


def overlap(*, main: float, side: float, together: float) -> Overlap:
    return Overlap(
        name="sorting",
        amount="3 sorts",
        main=main,
        side=side,
        after_each_other=main + side,
        together=together,
    )


@pytest.mark.parametrize(("together", "gained"), [(2.0, 1.0), (3.0, 0.0), (2.5, 0.5), (3.5, -0.5)])
def test_gained_is_the_part_of_the_shorter_that_cost_nothing(
    together: float, gained: float
) -> None:
    assert overlap(main=2.0, side=1.0, together=together).gained == pytest.approx(gained)
    assert overlap(main=1.0, side=2.0, together=together).gained == pytest.approx(gained)


def test_a_row_shows_all_four_times() -> None:
    row = line(overlap(main=2.0, side=1.0, together=2.5))
    assert row == "| sorting | 3 sorts | 2.000 | 1.000 | 3.000 | 2.500 | 50 % |"


def test_amounts_stay_within_bounds() -> None:
    assert amount_for(10.0, 1.0) == 5
    assert amount_for(1.0, 10.0) == 1
    assert amount_for(1.0, 1e-9) == 200
    assert amount_for(1.0, 0.0) == 1


def test_the_fastest_of_the_rounds_counts_and_each_begins_with_another() -> None:
    now, diary = [0.0], list[str]()

    def worker(name: str, seconds: list[float]) -> Callable[[], None]:
        def work() -> None:
            diary.append(name)
            now[0] += seconds.pop()

        return work

    actions = {"a": worker("a", [1.0, 3.0, 2.0]), "b": worker("b", [4.0, 4.0, 4.0])}
    assert fastest_seconds(actions, 3, lambda: now[0]) == {"a": 1.0, "b": 4.0}
    assert diary == ["a", "b", "b", "a", "a", "b"]
