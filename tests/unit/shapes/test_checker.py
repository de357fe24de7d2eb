"""The checker accepts what was drawn as asked, and refuses each thing that is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from workers.shapes.captions import (
    BACKGROUNDS,
    COLOURS,
    RELATIONS,
    SHAPES,
    Scene,
    Thing,
    all_scenes,
    sample_held_out,
)
from workers.shapes.checker import Accuracy, Verdict, check
from workers.shapes.drawing import draw

OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
COUNT = 200


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return sample_held_out(1, COUNT)


@pytest.fixture(scope="module")
def pictures(scenes: list[Scene]) -> NDArray[np.uint8]:
    return draw(scenes, np.random.Generator(np.random.PCG64(2)))


def accuracy(pictures: NDArray[np.uint8], scenes: list[Scene]) -> Accuracy:
    return Accuracy.of(check(pictures, scenes))


def test_drawn_pictures_are_right(pictures: NDArray[np.uint8], scenes: list[Scene]) -> None:
    found = accuracy(pictures, scenes)
    assert found.pictures == COUNT
    assert min(found.colour, found.relation, found.shape, found.background, found.all) >= 0.99


def test_drawn_pictures_of_single_objects_are_right() -> None:
    alone = [scene for scene in all_scenes() if scene.second is None]
    assert accuracy(draw(alone, np.random.Generator(np.random.PCG64(3))), alone).all >= 0.99


def test_noise_and_blur_of_a_decoder_do_not_matter(
    pictures: NDArray[np.uint8], scenes: list[Scene]
) -> None:
    generator = np.random.Generator(np.random.PCG64(4))
    floats = pictures[:100].astype(np.float64)
    blurred = (floats + np.roll(floats, 1, axis=1) + np.roll(floats, 1, axis=2)) / 3
    noisy = np.clip(blurred + generator.normal(0, 6, blurred.shape), 0, 255).astype(np.uint8)
    assert accuracy(noisy, scenes[:100]).all >= 0.98


def test_another_relation_is_refused_and_nothing_else(
    pictures: NDArray[np.uint8], scenes: list[Scene]
) -> None:
    asked = [replace(scene, relation=OPPOSITE[str(scene.relation)]) for scene in scenes]
    found = accuracy(pictures, asked)
    assert found.relation == 0
    assert found.colour >= 0.99
    assert found.shape >= 0.99
    assert found.all == 0


def test_exchanged_objects_are_refused_by_the_relation(
    pictures: NDArray[np.uint8], scenes: list[Scene]
) -> None:
    asked = [replace(scene, first=scene.things[1], second=scene.first) for scene in scenes]
    found = accuracy(pictures, asked)
    assert found.relation == 0
    assert found.colour >= 0.99


@pytest.mark.parametrize("step", [1, 2])
def test_another_shape_is_refused(
    pictures: NDArray[np.uint8], scenes: list[Scene], step: int
) -> None:
    asked = [replace(scene, first=other_shape(scene.first, step)) for scene in scenes]
    found = accuracy(pictures, asked)
    assert found.shape <= 0.01
    assert found.colour >= 0.99
    assert found.relation >= 0.99


def other_shape(thing: Thing, step: int) -> Thing:
    return Thing(thing.colour, SHAPES[(SHAPES.index(thing.shape) + step) % len(SHAPES)])


def test_another_colour_is_refused(pictures: NDArray[np.uint8], scenes: list[Scene]) -> None:
    asked = [replace(scene, first=other_colour(scene)) for scene in scenes]
    found = accuracy(pictures, asked)
    assert found.colour == found.relation == found.shape == 0


def other_colour(scene: Scene) -> Thing:
    taken = {thing.colour for thing in scene.things}
    colour = next(colour for colour in COLOURS if colour not in taken)
    return Thing(colour, scene.first.shape)


def test_a_missing_object_is_refused(pictures: NDArray[np.uint8], scenes: list[Scene]) -> None:
    erased = pictures.copy()
    for picture, scene in zip(erased, scenes, strict=True):
        colour = np.array(COLOURS[scene.things[1].colour])
        near = np.abs(picture.astype(int) - colour).sum(axis=-1) < 90
        picture[near] = BACKGROUNDS[scene.background]
    found = accuracy(erased, scenes)
    assert found.colour <= 0.01
    assert found.all <= 0.01


def test_a_further_object_is_refused(pictures: NDArray[np.uint8], scenes: list[Scene]) -> None:
    alone = [Scene(first=scene.first, background=scene.background) for scene in scenes]
    # The smallest triangles cover less of the picture than the rule notices.
    assert accuracy(pictures, alone).colour <= 0.1


def test_another_background_is_refused(pictures: NDArray[np.uint8], scenes: list[Scene]) -> None:
    names = list(BACKGROUNDS)
    asked = [
        replace(scene, background=names[(names.index(scene.background) + 1) % 3])
        for scene in scenes
    ]
    found = accuracy(pictures, asked)
    assert found.background == found.all == 0
    assert min(found.colour, found.relation, found.shape) >= 0.99


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_empty_picture_is_refused(value: int) -> None:
    empty = np.full((1, 128, 128, 3), value, dtype=np.uint8)
    for relation in RELATIONS:
        scene = Scene(
            first=Thing("red", "circle"), relation=relation, second=Thing("blue", "square")
        )
        verdict = check(empty, [scene])[0]
        assert not (verdict.colour or verdict.relation or verdict.shape or verdict.all)


def test_objects_too_close_in_the_asked_direction_are_refused() -> None:
    picture = np.full((1, 128, 128, 3), 255, dtype=np.uint8)
    picture[0, 20:40, 50:70] = COLOURS["red"]
    picture[0, 80:100, 53:73] = COLOURS["blue"]
    scene = Scene(first=Thing("red", "square"), relation="left of", second=Thing("blue", "square"))
    assert check(picture, [scene])[0] == Verdict(
        colour=True, relation=False, shape=True, background=True
    )
    assert check(picture, [replace(scene, relation="above")])[0].all


def test_specks_are_too_small_to_be_objects() -> None:
    picture = np.full((1, 128, 128, 3), 255, dtype=np.uint8)
    picture[0, 20:60, 20:60] = COLOURS["red"]
    picture[0, 90:100, 90:100] = COLOURS["blue"]
    scene = Scene(first=Thing("red", "square"), relation="above", second=Thing("blue", "square"))
    verdict = check(picture, [scene])[0]
    assert not verdict.colour
    assert verdict.relation


def test_as_many_pictures_as_scenes_are_needed() -> None:
    with pytest.raises(ValueError, match="1 pictures for 0 scenes"):
        check(np.zeros((1, 128, 128, 3), dtype=np.uint8), [])
