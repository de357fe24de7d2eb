"""What the threads of the outputs tab bring, each with a client of its own.

The rule this module protects: a thread answers with a value, always. What the daemon refuses or a
file's content prevents becomes a ``Problem`` to be shown, and nothing of a widget is touched here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from daemon.cli.units import size
from daemon.errors import DaemonAwayError, StudioqError, TooLargeError
from tui.outputs.decode import Frame, Picture, open_picture
from tui.outputs.files import Look, Row
from tui.outputs.half_cells import half_cells
from tui.outputs.terminal import Drawing, terminal
from tui.outputs.texts import Text, first_part, read_text
from tui.outputs.wrapping import Wrapped

if TYPE_CHECKING:
    from textual.strip import Strip

    from daemon.client import Client
    from daemon.client.answers import Artifact
    from tui.outputs.scratch import Scratch
    from tui.pane import Connect

# A picture file that is larger is not fetched to be drawn.
MOST_PICTURE_BYTES = 64_000_000

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A row to be shown: a picture in ``frame``, a text in lines of ``width`` cells."""

    number: int
    row: Row
    frame: Frame
    width: int


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why something is not shown; ``away``: because no daemon answers."""

    message: str
    away: bool = False


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A picture ready for the screen; ``strips`` where it is drawn in half-cells."""

    picture: Picture
    strips: list[Strip] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A text ready for the screen."""

    wrapped: Wrapped
    text: Text


def attempt(connect: Connect, call: Callable[[Client], T]) -> T | Problem:
    """Return what ``call(client)`` returns, or what was wrong."""
    try:
        with closing(connect()) as client:
            return call(client)
    except StudioqError as error:
        return Problem(message=explained(error), away=isinstance(error, DaemonAwayError))
    except OSError as error:
        return Problem(message=f"{error.filename or 'the system'}: {error.strerror or error}")


def explained(error: StudioqError) -> str:
    """Return what is wrong and what helps, as two sentences."""
    return f"{error.message}\n{error.remedy}" if error.remedy else error.message


@dataclass(frozen=True, kw_only=True)
class PictureWish:
    """A finished picture, to be drawn in ``frame``."""

    number: int
    artifact: Artifact
    frame: Frame


def load(client: Client, scratch: Scratch, wish: Wish) -> Drawn | Page:
    """Bring what a row shows."""
    artifact = wish.row.artifact
    if artifact is None:
        return load_preview(client, scratch, wish.number, wish.frame)
    if wish.row.look is Look.TEXT:
        return load_text(client, wish.number, artifact, wish.width)
    picture = PictureWish(number=wish.number, artifact=artifact, frame=wish.frame)
    return load_picture(client, scratch, picture)


def load_picture(client: Client, scratch: Scratch, wish: PictureWish) -> Drawn:
    """Fetch a finished picture, if it is not here yet, and draw it."""
    artifact = wish.artifact
    if artifact["bytes"] > MOST_PICTURE_BYTES:
        raise TooLargeError(
            f"{artifact['name']} has {size(artifact['bytes'])}; up to {size(MOST_PICTURE_BYTES)} "
            "are fetched to be drawn",
            remedy="s saves it to a folder",
        )
    return draw(scratch.fetch(client, wish.number, artifact), wish.frame)


def load_preview(client: Client, scratch: Scratch, number: int, frame: Frame) -> Drawn:
    """Fetch the picture that a running diffusion is making, and draw it."""
    return draw(client.preview(number, scratch.folder() / f"preview-{number}.png"), frame)


def draw(path: Path, frame: Frame) -> Drawn:
    """Return the picture in a file as this terminal draws it."""
    in_cells = terminal().drawing is Drawing.HALF_CELLS
    picture = open_picture(path, frame, half_cells=in_cells)
    return Drawn(picture=picture, strips=half_cells(picture.image) if in_cells else [])


def load_text(client: Client, number: int, artifact: Artifact, width: int) -> Page:
    """Fetch the beginning of a text file and wrap it."""
    data, clipped = first_part(client.blocks(number, artifact["name"]))
    text = read_text(artifact["name"], data, total=artifact["bytes"], clipped=clipped)
    wrapped = Wrapped(width)
    wrapped.append(text.text)
    return Page(wrapped=wrapped, text=text)
