"""Drawn pictures show what their captions say, and are the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from workers.shapes.captions import BACKGROUNDS, COLOURS, RELATIONS, Scene, Thing, all_scenes
from workers.shapes.drawing import GAP, MARGIN, SIZE, SLANT, draw, draw_blocks, place

PAIRS = [scene for scene in all_scenes() if scene.second is not None]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def some(scenes: list[Scene], count: int) -> list[Scene]:
    return [scenes[index] for index in generator(9).choice(len(scenes), count)]


def test_objects_are_inside_and_apart_and_clearly_in_their_relation() -> None:
    scenes = some(PAIRS, 3000)
    layout = place(scenes, generator())
    low = layout.centres - layout.radii[..., None]
    high = layout.centres + layout.radii[..., None]
    assert low.min() >= MARGIN - 1e-3
    assert high.max() <= SIZE - MARGIN + 1e-3
    for scene, centres, radii in zip(scenes, layout.centres, layout.radii, strict=True):
        along = 0 if scene.relation in ("left of", "right of") else 1
        difference = centres[1] - centres[0]
        ahead = difference[along] if scene.relation in ("left of", "above") else -difference[along]
        assert ahead >= radii.sum() + GAP - 1e-3
        assert abs(difference[1 - along]) <= SLANT * ahead + 1e-3


def test_single_objects_are_inside_and_of_many_sizes_and_places() -> None:
    layout = place([Scene(first=Thing("red", "circle"))] * 2000, generator())
    assert not layout.radii[:, 1].any()
    low = layout.centres[:, 0] - layout.radii[:, :1]
    high = layout.centres[:, 0] + layout.radii[:, :1]
    assert low.min() >= MARGIN - 1e-3
    assert high.max() <= SIZE - MARGIN + 1e-3
    assert np.ptp(layout.radii[:, 0]) > 15
    assert np.ptp(layout.centres[:, 0], axis=0).min() > 60


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("colour", COLOURS)
def test_colours_are_exact_at_the_centres_and_on_the_border(colour: str, background: str) -> None:
    other = "red" if colour != "red" else "blue"
    scene = Scene(
        first=Thing(colour, "square"),
        relation="above",
        second=Thing(other, "circle"),
        background=background,
    )
    layout, picture = place([scene], generator()), draw([scene], generator())[0]
    for thing, (x, y) in zip(scene.things, layout.centres[0], strict=True):
        assert tuple(picture[int(y), int(x)]) == COLOURS[thing.colour]
    assert tuple(picture[0, 0]) == tuple(picture[-1, -1]) == BACKGROUNDS[background]


@pytest.mark.parametrize(
    ("shape", "share"), [("circle", np.pi), ("square", 4.0), ("triangle", 3**0.5)]
)
def test_covered_areas_are_those_of_the_shapes(shape: str, share: float) -> None:
    scenes = [Scene(first=Thing("red", shape), background="black")] * 50
    radii = place(scenes, generator()).radii[:, 0]
    pictures = draw(scenes, generator()).astype(np.float64)
    red, black = COLOURS["red"][0], BACKGROUNDS["black"][0]
    areas = ((pictures[..., 0] - black) / (red - black)).sum(axis=(1, 2))
    assert np.allclose(areas, share * radii**2, rtol=0.015)


def test_edges_are_smooth() -> None:
    picture = draw([Scene(first=Thing("red", "circle"))], generator())[0]
    distinct = np.unique(picture.reshape(-1, 3), axis=0)
    assert len(distinct) > 20


def test_a_triangle_has_its_tip_up() -> None:
    picture = draw([Scene(first=Thing("blue", "triangle"))], generator())[0]
    widths = (picture[..., 0] < 150).sum(axis=1)
    rows = np.flatnonzero(widths)
    assert widths[rows[1]] < widths[rows[-2]]


@pytest.mark.parametrize("relation", RELATIONS)
def test_the_first_object_is_where_the_caption_says(relation: str) -> None:
    scene = Scene(first=Thing("red", "circle"), relation=relation, second=Thing("blue", "square"))
    for picture in draw([scene] * 20, generator()):
        first, second = centre(picture, "red"), centre(picture, "blue")
        x, y = first - second
        assert {"left of": -x, "right of": x, "above": -y, "below": y}[relation] > 30


def centre(picture: NDArray[np.uint8], colour: str) -> NDArray[np.float64]:
    rows, columns = np.nonzero((picture == COLOURS[colour]).all(axis=-1))
    return np.array([columns.mean(), rows.mean()])


def test_pictures_follow_from_the_seed() -> None:
    scenes = some(PAIRS, 40)
    assert np.array_equal(draw(scenes, generator(1)), draw(scenes, generator(1)))
    assert not np.array_equal(draw(scenes, generator(1)), draw(scenes, generator(2)))


def test_other_sizes_show_the_same_scaled() -> None:
    scenes = some(PAIRS, 10)
    large, small = draw(scenes, generator()), draw(scenes, generator(), 32)
    assert small.shape == (10, 32, 32, 3)
    means = large.reshape(10, 32, 4, 32, 4, 3).mean(axis=(2, 4))
    assert np.abs(means - small).mean() < 2


def test_no_scenes_give_no_pictures() -> None:
    assert draw([], generator()).shape == (0, SIZE, SIZE, 3)


def test_a_pool_does_not_depend_on_how_many_processes_draw_it() -> None:
    alone = list(draw_blocks(1030, 7, 8, processes=1))
    together = list(draw_blocks(1030, 7, 8, processes=2))
    assert [len(block.pictures) for block in alone] == [1024, 6]
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.pictures, other.pictures)
        assert np.array_equal(one.scenes, other.scenes)
    assert not np.array_equal(alone[0].scenes[:6], alone[1].scenes)
