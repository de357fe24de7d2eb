"""The captions of the ``shapes`` model: what a picture can show, and which pairs are held out.

The rule this module protects: accuracy is measured on pairs of objects that no training picture
had. A pair is held out whichever of the two is named first, because "A left of B" and "B right of
A" are the same picture. The choice depends on the pairs' names alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, permutations, product
from typing import Literal

import numpy as np

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 220),
    "yellow": (240, 210, 50),
    "orange": (245, 140, 30),
    "purple": (140, 60, 180),
    "pink": (245, 150, 190),
    "cyan": (60, 200, 210),
}
SHAPES = ("circle", "square", "triangle")
RELATIONS = ("left of", "right of", "above", "below")
BACKGROUNDS: dict[str, Colour] = {
    "white": (255, 255, 255),
    "gray": (128, 128, 128),
    "black": (16, 16, 16),
}
UNSAID = "white"

HELD_OUT_SHARE = 0.1
SINGLE_SHARE = 0.15

Part = Literal["train", "held-out"]


@dataclass(frozen=True, order=True, slots=True)
class Thing:
    """One object of a picture."""

    colour: str
    shape: str

    def __str__(self) -> str:
        article = "an" if self.colour[0] in "aeiou" else "a"
        return f"{article} {self.colour} {self.shape}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What one caption asks for: an object, or two in a relation, on a background."""

    first: Thing
    relation: str | None = None
    second: Thing | None = None
    background: str = UNSAID

    @property
    def things(self) -> tuple[Thing, ...]:
        """The objects, in the caption's order."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def caption(self) -> str:
        """The caption, for example ``a red circle left of a blue square on a gray background``."""
        text = str(self.first)
        if self.second is not None:
            text += f" {self.relation} {self.second}"
        return text if self.background == UNSAID else f"{text} on a {self.background} background"


@cache
def all_scenes() -> tuple[Scene, ...]:
    """Return the 6,120 scenes: 24 objects alone, 504 ordered pairs of two colours in 4 relations.

    Each is on 3 backgrounds. The order never changes, so a scene's place here can stand for it.
    """
    things = [Thing(colour, shape) for colour, shape in product(COLOURS, SHAPES)]
    alone = [Scene(first=thing, background=on) for thing, on in product(things, BACKGROUNDS)]
    pairs = [
        Scene(first=first, relation=relation, second=second, background=on)
        for (first, second), relation, on in product(
            permutations(things, 2), RELATIONS, BACKGROUNDS
        )
        if first.colour != second.colour
    ]
    return (*alone, *pairs)


def scene_of(caption: str) -> Scene | None:
    """Return the scene that ``caption`` describes word for word, None if it is none of them."""
    return _by_caption().get(" ".join(caption.lower().split()))


@cache
def _by_caption() -> dict[str, Scene]:
    return {scene.caption: scene for scene in all_scenes()}


@cache
def held_out_pairs() -> frozenset[frozenset[Thing]]:
    """Return the tenth of the 252 unordered pairs that training never shows.

    The pairs whose names have the smallest SHA-256: no random generator, the same everywhere.
    """
    things = [Thing(colour, shape) for colour, shape in product(sorted(COLOURS), SHAPES)]
    pairs = [pair for pair in combinations(sorted(things), 2) if pair[0].colour != pair[1].colour]
    ranked = sorted(pairs, key=_digest)
    return frozenset(frozenset(pair) for pair in ranked[: round(len(pairs) * HELD_OUT_SHARE)])


def _digest(pair: Sequence[Thing]) -> str:
    return hashlib.sha256(" | ".join(str(thing) for thing in pair).encode()).hexdigest()


def scene_indices(part: Part) -> tuple[int, ...]:
    """Return the places in :func:`all_scenes` of the captions of one part."""
    wanted, held = part == "held-out", held_out_pairs()
    return tuple(
        index
        for index, scene in enumerate(all_scenes())
        if (frozenset(scene.things) in held) is wanted
    )


def sample_training(generator: np.random.Generator, count: int) -> np.ndarray:
    """Draw ``count`` training scenes as places in :func:`all_scenes`, with repetition.

    Single objects are a hundredth of the captions; :data:`SINGLE_SHARE` of the draws are theirs,
    so that colours and shapes are seen alone.
    """
    scenes, places = all_scenes(), scene_indices("train")
    alone = np.array([place for place in places if scenes[place].second is None])
    pairs = np.array([place for place in places if scenes[place].second is not None])
    single = generator.random(count) < SINGLE_SHARE
    return np.where(single, generator.choice(alone, count), generator.choice(pairs, count))


def sample_held_out(seed: int, count: int) -> list[Scene]:
    """Return ``count`` held-out scenes in random order; each comes once before any comes twice."""
    generator = np.random.Generator(np.random.PCG64(seed))
    scenes, places = all_scenes(), scene_indices("held-out")
    order: list[int] = []
    while len(order) < count:
        order.extend(int(place) for place in generator.permutation(places))
    return [scenes[place] for place in order[:count]]


def words() -> Iterator[str]:
    """Yield every word of every caption, with repetition."""
    for scene in all_scenes():
        yield from scene.caption.split()
