"""Whether a picture shows what its caption asks for, by rules on pixels.

The rule this module protects: the checker knows nothing of how a picture was drawn or of the model;
it sees pixels and a scene. It accepts drawn pictures of the scene and refuses those of another.

A pixel has the colour of the palette that is nearest, if that is within :data:`NEAR` (Euclidean
distance in RGB). Places and shapes are read from a colour's core, the pixels whose eight neighbours
have it too: smooth edges of one object can have the colour of another (red on white turns pink).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.shapes.captions import BACKGROUNDS, COLOURS, Scene, Thing

NEAR = 60.0
LEAST_AREA = 0.01
MOST_OTHER = 0.02
LEAST_DISTANCE = 4.0
TRIANGLE_FILL = 0.67
CIRCLE_FILL = 0.91

# The direction in which the first object's centre lies from the second's, as (x, y).
_DIRECTIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
_NAMES = tuple(COLOURS)
_PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)
_NONE = len(_NAMES)
_CHUNK = 64

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What of a caption a picture shows; a caption that asks for no relation has it."""

    colour: bool
    relation: bool
    shape: bool
    background: bool

    @property
    def all(self) -> bool:
        """Everything is as asked."""
        return self.colour and self.relation and self.shape and self.background


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Shares of pictures, 0 to 1."""

    colour: float
    relation: float
    shape: float
    background: float
    all: float
    pictures: int

    @classmethod
    def of(cls, verdicts: Iterable[Verdict]) -> Accuracy:
        """Return the shares over ``verdicts``, of which there is at least one."""
        rows = [(v.colour, v.relation, v.shape, v.background, v.all) for v in verdicts]
        shares = np.mean(np.array(rows, dtype=np.float64), axis=0)
        colour, relation, shape, background, everything = (float(share) for share in shares)
        return cls(
            colour=colour,
            relation=relation,
            shape=shape,
            background=background,
            all=everything,
            pictures=len(rows),
        )


def check(pictures: NDArray[np.uint8], scenes: Sequence[Scene]) -> list[Verdict]:
    """Judge pictures of shape (N, H, W, 3), 0 to 255, by the scenes that were asked for."""
    if len(pictures) != len(scenes):
        raise ValueError(f"{len(pictures)} pictures for {len(scenes)} scenes")
    verdicts: list[Verdict] = []
    for start in range(0, len(pictures), _CHUNK):
        part = pictures[start : start + _CHUNK]
        labels = label(part)
        for picture, found, scene in zip(part, labels, scenes[start:], strict=False):
            verdicts.append(_judge(picture, found, scene))
    return verdicts


def label(pictures: NDArray[np.uint8]) -> Labels:
    """Return for each pixel (N, H, W) the place of its colour in the palette, or its length."""
    values = pictures.astype(np.float32)
    # The squared distance but for the pixel's own square, which is the same for all colours.
    # Every number is whole and below 2**24, so float32 is exact.
    squares = (_PALETTE**2).sum(axis=1) - 2 * (values @ _PALETTE.T)
    nearest = squares.argmin(axis=-1).astype(np.uint8)
    distances = squares.min(axis=-1) + (values**2).sum(axis=-1)
    nearest[distances > NEAR**2] = _NONE
    return nearest


def _judge(picture: NDArray[np.uint8], labels: Labels, scene: Scene) -> Verdict:
    cores = [_core(labels == _NAMES.index(thing.colour)) for thing in scene.things]
    there = all(core.any() for core in cores)
    return Verdict(
        colour=_has_colours(labels, scene.things),
        relation=there and _has_relation(cores, scene.relation),
        shape=all(
            _shape_of(core) == thing.shape for core, thing in zip(cores, scene.things, strict=True)
        ),
        background=_has_background(picture, scene.background),
    )


def _has_colours(labels: Labels, things: Sequence[Thing]) -> bool:
    """Say whether each asked colour has its area and no other has more than a trace."""
    shares = np.bincount(labels.ravel(), minlength=_NONE + 1)[:_NONE] / labels.size
    asked = {thing.colour for thing in things}
    return all(
        share >= LEAST_AREA if name in asked else share < MOST_OTHER
        for name, share in zip(_NAMES, shares, strict=True)
    )


def _core(mask: Mask) -> Mask:
    """Return the pixels of ``mask`` whose eight neighbours are in it."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] & padded[1:-1] & padded[2:]
    core: Mask = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
    return core


def _has_relation(cores: Sequence[Mask], relation: str | None) -> bool:
    """Say whether the first core's centre is more than the least distance in the direction."""
    if relation is None:
        return True
    difference = _centre(cores[0]) - _centre(cores[1])
    return bool(difference @ np.array(_DIRECTIONS[relation]) > LEAST_DISTANCE)


def _centre(mask: Mask) -> NDArray[np.float64]:
    """Return the mean x and y of the pixels of ``mask``."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()])


def _shape_of(mask: Mask) -> str | None:
    """Name a shape by how much of its bounding box it fills (exactly: 1/2, pi/4 and 1)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    fill = float(mask.sum() / box)
    if fill < TRIANGLE_FILL:
        return "triangle"
    return "circle" if fill < CIRCLE_FILL else "square"


def _has_background(picture: NDArray[np.uint8], background: str) -> bool:
    """Say whether most of the picture's border is near the asked background."""
    edges = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
    border = np.concatenate(edges).astype(np.float32)
    away = border - np.array(BACKGROUNDS[background], dtype=np.float32)
    return bool(((away**2).sum(axis=-1) <= NEAR**2).mean() > 0.5)
