"""Running a function that reports by calling back, as a generator that yields its reports.

The rule this module protects: everything happens in the engine's one thread. MLX ties arrays to the
thread that made them: with a warm model and a thread for each job, mflux's Z-Image ended in "There
is no Stream(cpu, 0) in current thread" (mlx 0.32.4). So mflux's loop runs in a greenlet, which is a
second stack in the same thread: it waits while the engine looks at an event, and a generator that
is closed ends it at the step where it stands.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator
from typing import Any, TypeVar

Report = TypeVar("Report")
Result = TypeVar("Result")


def reports_of(
    function: Callable[[Callable[[Report], None]], Result],
) -> Generator[Report, None, Result]:
    """Call ``function(report)``; yield what it passes to ``report``, return what it returns.

    What the function raises is raised here. Closing the generator raises ``GreenletExit``, which is
    no ``Exception``, from the function's pending call of ``report``.
    """
    greenlets: Any = importlib.import_module("greenlet")

    def report(value: Report) -> None:
        child.parent.switch(value)

    child: Any = greenlets.greenlet(function)
    try:
        value = child.switch(report)
        while not child.dead:
            yield value
            child.parent = greenlets.getcurrent()
            value = child.switch()
        result: Result = value
        return result
    finally:
        if not child.dead:
            child.parent = greenlets.getcurrent()
            child.throw()
