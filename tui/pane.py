"""What the tabs of a job's detail have in common.

The rule this module protects: a tab works only while it is looked at, and only for the job that is
shown. ``show_job`` starts it, with None it is at rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.widget import Widget

if TYPE_CHECKING:
    from daemon.client import Client
    from daemon.client.answers import JobLine

# Opens a client of one's own: a client serves one thread, and each worker thread opens its own.
Connect = Callable[[], "Client"]


class JobPane(Widget):
    """One tab of the detail: everything that it shows is of one job.

    The app calls ``show_job`` with another job, or with None while the tab is hidden, and
    ``update_job`` when the line of the job that is shown has changed (its state, its progress).
    Both run in the thread that draws and return at once; what takes time goes to a thread worker
    (``textual.work(thread=True, exclusive=True)``) with a client of its own.
    """

    def __init__(self, connect: Connect, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.connect = connect
        self.job: JobLine | None = None

    def show_job(self, job: JobLine | None) -> None:
        """Show another job; rest with None."""
        self.job = job

    def update_job(self, job: JobLine) -> None:
        """Take the changed line of the job that is shown."""
        self.job = job
