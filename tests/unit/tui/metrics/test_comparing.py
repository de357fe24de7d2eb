"""Another job beside the one that is shown: choosing it, seeing it, leaving it."""

from __future__ import annotations

import asyncio

from textual.widgets import Input, OptionList

from tests.unit.tui.conftest import Studio
from tests.unit.tui.metrics.conftest import add_training, measure, seated
from tui.metrics.picker import JobPicker


def test_comparing(studio: Studio, trained: int) -> None:
    second = add_training(studio, rank=16)
    studio.start(second)
    measure(studio, second, 1, 30)

    async def compare() -> None:
        async with seated(studio, size=(100, 50)) as seat:
            await seat.show(second)
            await seat.until(lambda: len(seat.titles) == 4)
            await seat.compare()
            await seat.until(lambda: len(seat.titles) == 5)
            await seat.until(lambda: f"#{trained} 1.002" in seat.titles[0])
            assert f"#{second} 1.05" in seat.titles[0]
            assert "differs in 1 field" in seat.text("status")
            assert "rank" in seat.text("differences")
            assert "learning_rate" not in seat.text("differences")
            await seat.press("v")
            await seat.until(lambda: f"#{trained}" in seat.text("values"))
            await seat.press("v", "escape")
            await seat.until(lambda: len(seat.titles) == 4)
            assert seat.text("differences") == ""
            await seat.compare()
            await seat.press("c")
            await seat.until(lambda: seat.text("status") == "")

    asyncio.run(compare())


def test_choosing_whom_to_compare_with(studio: Studio, trained: int) -> None:
    first = add_training(studio)
    studio.add("noop")
    add_training(studio)

    async def choose() -> None:
        async with seated(studio) as seat:
            await seat.show(trained)
            await seat.press("c")
            await seat.until(lambda: isinstance(seat.app.screen, JobPicker))
            jobs = seat.app.screen.query_one(OptionList)
            await seat.until(lambda: jobs.option_count == 2)
            assert jobs.highlighted == 0
            await seat.press("down")
            assert jobs.highlighted == 1
            await seat.press("up")
            assert jobs.highlighted == 0
            seat.app.screen.query_one(Input).value = f"lora {first}"
            await seat.until(lambda: jobs.option_count == 1)
            await seat.press("enter")
            await seat.until(lambda: f"compared with job {first}" in seat.text("status"))
            await seat.press("escape", "c")
            await seat.until(lambda: isinstance(seat.app.screen, JobPicker))
            await seat.press("escape")
            await seat.until(lambda: not isinstance(seat.app.screen, JobPicker))
            assert seat.text("status") == ""

    asyncio.run(choose())


def test_a_job_that_vanished_cannot_be_compared(studio: Studio, trained: int) -> None:
    async def compare() -> None:
        async with seated(studio) as seat:
            await seat.show(trained)
            gone = {**seat.line(trained), "id": 4711}
            seat.pane._compare(trained, gone)  # type: ignore[arg-type]
            await seat.until(lambda: "Job 4711 cannot be compared" in seat.text("status"))
            await seat.until(lambda: len(seat.titles) == 4)

    asyncio.run(compare())
