"""A small app around the outputs tab, pictures, and files published while a job runs."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import wraps
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ParamSpec

import pytest
from PIL import Image
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from daemon.ledger import attempts
from daemon.ledger.attempts import File
from tests.unit.tui.conftest import NOW, Studio
from tui.outputs import OutputsPane
from tui.outputs.files import Row

if TYPE_CHECKING:
    from daemon.client.answers import JobLine

PATIENCE = 20.0

P = ParamSpec("P")


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test that is a coroutine in a loop of its own."""

    @wraps(test)
    def run(*args: P.args, **options: P.kwargs) -> None:
        asyncio.run(test(*args, **options))

    return run


class OutputsApp(App[None]):
    """Shows the tab alone."""

    def __init__(self, studio: Studio) -> None:
        super().__init__()
        self.studio = studio
        self.said: list[str] = []

    def compose(self) -> ComposeResult:
        yield OutputsPane(self.studio.connect, id="outputs")

    def notify(self, message: str, **options: Any) -> None:
        self.said.append(message)
        super().notify(message, **options)

    @property
    def pane(self) -> OutputsPane:
        return self.screen_stack[0].query_one(OutputsPane)

    def line(self, number: int) -> JobLine:
        """Return the job as the queue's list has it."""
        with self.studio.connect() as client:
            return next(job for job in client.jobs(everything=True)["jobs"] if job["id"] == number)

    def show(self, number: int) -> None:
        self.pane.show_job(self.line(number))

    def update(self, number: int) -> None:
        self.pane.update_job(self.line(number))

    def is_at(self, place: int) -> bool:
        """Return whether the picture in that place is shown."""
        return self.has_picture and self.caption.startswith(f"{place}/")

    @property
    def caption(self) -> str:
        return str(self.pane.viewer.query_one("#caption").render())

    @property
    def message(self) -> str:
        """What stands in the place of an output."""
        viewer = self.pane.viewer
        return str(viewer.query_one("#said").render()) if viewer.shown == "said" else ""

    @property
    def told(self) -> str:
        return str(self.pane.query_one("#outputs-told").render())

    @property
    def text(self) -> str:
        viewer = self.pane.viewer
        return "\n".join(viewer.text_view.wrapped.lines) if viewer.shown == "text" else ""

    @property
    def has_picture(self) -> bool:
        return self.pane.viewer.shown == "picture" and self.pane.viewer.box.drawn is not None

    @property
    def titles(self) -> list[str]:
        return [row.title for row in self.pane.rows]


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while True:
        # A widget may be on its way onto the screen.
        with suppress(LookupError):
            if condition():
                return
        assert time.monotonic() < deadline, "it never came to be so"
        await pilot.pause(0.01)


def png(width: int = 64, height: int = 48, colour: str = "red") -> bytes:
    """Return a PNG file."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return file.getvalue()


def publish(
    studio: Studio, number: int, files: dict[str, bytes], *, kind: str, step: int = 1
) -> None:
    """Publish files of a running job as a checkpoint does it."""
    claim = studio.claims[number]
    folder = studio.stage.paths.attempt(number, claim.number)
    made = []
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        digest = sha256(content).hexdigest()
        made.append(File(name=name, kind=kind, bytes=len(content), sha256=digest, step=step))
    with studio.stage.ledger.writing() as session:
        attempts.add_checkpoint(
            session, claim.fence, step=step, folder=f"at-{step}", files=made, now=NOW + 2
        )


def ended(studio: Studio, files: dict[str, bytes], *, kind: str, job: str = "noop") -> int:
    """Return a job that has ended with files."""
    specs: dict[str, dict[str, Any]] = {
        "noop": {},
        "infer": {"model": "m", "prompt": "Say something"},
        "diffuse": {"model": "shapes", "prompt": "a red circle"},
    }
    number = studio.add(job, spec=specs[job])
    studio.start(number)
    studio.end(number, files=files, kind=kind)
    return number


PICTURES = {f"image-{number:04}.png": png(colour=f"rgb({number},90,200)") for number in range(5)}


@pytest.fixture
def pictured(studio: Studio) -> int:
    """A job with five pictures."""
    return ended(studio, PICTURES, kind="image", job="diffuse")


async def shown(pilot: Pilot[None], app: OutputsApp, number: int) -> None:
    """Show a job with pictures, the keyboard in its list."""
    app.pane.files.focus()
    app.show(number)
    await until(pilot, lambda: app.has_picture)


def row(name: str, *, kind: str = "image", step: int | None = None, size: int = 1000) -> Row:
    """Return a finished file's row."""
    from tui.outputs.files import look_of

    artifact: Any = {
        "name": name,
        "kind": kind,
        "bytes": size,
        "sha256": "ab" * 32,
        "step": step,
        "attempt": 1,
    }
    return Row(key=name, title=name, look=look_of(artifact), artifact=artifact)
