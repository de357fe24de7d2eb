"""Who is next: priority, fair share, age, and the bounded bonus of a warm model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon import defaults
from daemon.scheduler import Head, rank

NOW = 1_000_000.0


def head(
    job: int, user: int = 1, *, priority: int = 0, model: str = "a", waited: float = 0
) -> Head:
    return Head(job_id=job, user_id=user, priority=priority, model=model, queued_at=NOW - waited)


def order(heads: list[Head], usage: dict[int, float] | None = None, warm: str = "") -> list[int]:
    return [item.job_id for item in rank(heads, usage or {}, {warm}, NOW)]


def test_priority_comes_first() -> None:
    assert order([head(1), head(2, priority=10)], {1: 0.0}) == [2, 1]


def test_who_has_used_less_goes_first() -> None:
    assert order([head(1, user=1), head(2, user=2)], {1: 100.0, 2: 1.0}) == [2, 1]


def test_age_decides_among_equals() -> None:
    assert order([head(2, model="b"), head(1)]) == [1, 2]


def test_a_warm_model_goes_before_an_older_cold_one() -> None:
    assert order([head(1, model="cold"), head(2, model="warm")], warm="warm") == [2, 1]


def test_the_bonus_is_bounded_by_what_the_user_has_used() -> None:
    heads = [head(1, user=1, model="cold"), head(2, user=2, model="warm")]
    usage = {1: 0.0, 2: defaults.WARM_MODEL_BONUS + 1}
    assert order(heads, usage, warm="warm") == [1, 2]


def test_the_bonus_fades_while_a_cold_job_waits() -> None:
    waited = defaults.WARM_BONUS_FADES
    assert order([head(1, model="cold", waited=waited), head(2, model="warm")], warm="warm") == [
        1,
        2,
    ]


heads_strategy = st.lists(
    st.builds(
        Head,
        job_id=st.integers(1, 1000),
        user_id=st.integers(1, 4),
        priority=st.sampled_from([-10, 0, 10]),
        model=st.sampled_from(["a", "b", None]),
        queued_at=st.floats(NOW - 1e6, NOW),
    ),
    unique_by=lambda item: item.job_id,
    max_size=20,
)


@given(heads=heads_strategy, usage=st.dictionaries(st.integers(1, 4), st.floats(0, 1e6)))
def test_no_job_is_lost_and_priority_always_holds(
    heads: list[Head], usage: dict[int, float]
) -> None:
    ranked = rank(heads, usage, {"a"}, NOW)
    assert sorted(item.job_id for item in ranked) == sorted(item.job_id for item in heads)
    priorities = [item.priority for item in ranked]
    assert priorities == sorted(priorities, reverse=True)
