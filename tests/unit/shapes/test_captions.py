"""The grammar has 6,120 captions, and what is held out is never in training."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest

from workers.shapes.captions import (
    BACKGROUNDS,
    COLOURS,
    RELATIONS,
    SHAPES,
    SINGLE_SHARE,
    Scene,
    Thing,
    all_scenes,
    held_out_pairs,
    sample_held_out,
    sample_training,
    scene_indices,
    scene_of,
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def test_there_are_6120_captions_and_no_two_are_alike() -> None:
    captions = [scene.caption for scene in all_scenes()]
    assert len(captions) == len(set(captions)) == 6120
    assert Counter(len(scene.things) for scene in all_scenes()) == {1: 72, 2: 6048}


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (Scene(first=Thing("red", "circle")), "a red circle"),
        (
            Scene(
                first=Thing("red", "circle"),
                relation="left of",
                second=Thing("blue", "square"),
                background="gray",
            ),
            "a red circle left of a blue square on a gray background",
        ),
        (
            Scene(
                first=Thing("pink", "triangle"),
                relation="above",
                second=Thing("orange", "square"),
            ),
            "a pink triangle above an orange square",
        ),
    ],
)
def test_a_scene_has_its_caption_and_a_caption_its_scene(scene: Scene, caption: str) -> None:
    assert scene.caption == caption
    assert scene_of(f"  {caption.upper()} ") == scene
    assert scene in all_scenes()


@pytest.mark.parametrize("caption", ["a red dog", "a red circle left of a red square", ""])
def test_other_texts_have_no_scene(caption: str) -> None:
    assert scene_of(caption) is None


def test_a_tenth_of_the_pairs_is_held_out_whichever_is_named_first() -> None:
    held = held_out_pairs()
    assert len(held) == 25
    assert frozenset({Thing("red", "circle"), Thing("blue", "square")}) in held
    assert frozenset({Thing("red", "circle"), Thing("blue", "triangle")}) not in held
    scenes = all_scenes()
    out = [scenes[index] for index in scene_indices("held-out")]
    assert len(out) == 25 * 2 * len(RELATIONS) * len(BACKGROUNDS)
    assert {frozenset(scene.things) for scene in out} == held
    assert {(scene.second, scene.first) for scene in out} == {
        (scene.first, scene.second) for scene in out
    }


def test_training_and_held_out_share_no_pair_and_leave_nothing_out() -> None:
    train, held = set(scene_indices("train")), set(scene_indices("held-out"))
    assert not train & held
    assert train | held == set(range(6120))
    scenes = all_scenes()
    shown = {frozenset(scenes[index].things) for index in train}
    assert not shown & held_out_pairs()


def test_training_shows_each_object_on_both_sides_of_each_relation_on_each_background() -> None:
    scenes = [all_scenes()[index] for index in scene_indices("train")]
    things = [Thing(colour, shape) for colour, shape in product(COLOURS, SHAPES)]
    wanted = set(product(things, RELATIONS, BACKGROUNDS))
    pairs = [scene for scene in scenes if scene.second is not None]
    assert {(scene.first, scene.relation, scene.background) for scene in pairs} == wanted
    assert {(scene.second, scene.relation, scene.background) for scene in pairs} == wanted


def test_samples_for_training_are_of_training_captions_with_single_objects_among_them() -> None:
    places = sample_training(generator(), 4000)
    assert set(places.tolist()) <= set(scene_indices("train"))
    alone = np.mean([all_scenes()[place].second is None for place in places.tolist()])
    assert abs(alone - SINGLE_SHARE) < 0.02
    assert np.array_equal(places, sample_training(generator(), 4000))
    assert not np.array_equal(places, sample_training(generator(1), 4000))


def test_samples_of_held_out_captions_repeat_none_before_all_were_there() -> None:
    scenes = sample_held_out(3, 700)
    held = [all_scenes()[index] for index in scene_indices("held-out")]
    assert len(set(scenes[:600])) == 600
    assert set(scenes) == set(held)
    assert scenes[:100] == sample_held_out(3, 100)
    assert scenes[:100] != sample_held_out(4, 100)
