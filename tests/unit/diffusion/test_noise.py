from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.diffusion.noise import NoiseStream, draw_batch, image_seed

SHAPE = (5, 3, 4)


def test_a_seed_always_gives_the_same_noise() -> None:
    """Were NumPy to change its generator, old jobs could not be repeated."""
    pixels = [
        [0.14190717041492462, 0.37403661012649536, -0.5217203497886658, 1.0554465055465698],
        [-1.6685079336166382, 1.7554446458816528, -0.18157489597797394, -0.7322651743888855],
    ]
    np.testing.assert_allclose(NoiseStream(42).draw((2, 2, 4))[0], pixels, rtol=1e-6)


def test_noise_is_drawn_channels_first() -> None:
    height, width, channels = SHAPE
    generator = np.random.Generator(np.random.PCG64(7))
    drawn = generator.standard_normal((channels, height, width), dtype=np.float32)
    np.testing.assert_array_equal(NoiseStream(7).draw(SHAPE), drawn.transpose(1, 2, 0))


def test_noise_is_plain_contiguous_float32() -> None:
    drawn = NoiseStream(0).draw(SHAPE)
    assert drawn.dtype == np.float32
    assert drawn.flags.c_contiguous


def test_noise_is_normal() -> None:
    drawn = NoiseStream(3).draw((128, 128, 4))
    assert abs(float(drawn.mean())) < 0.02
    assert abs(float(drawn.std()) - 1) < 0.02


def test_later_draws_go_on_where_the_first_ended() -> None:
    stream = NoiseStream(5)
    first, second = stream.draw(SHAPE), stream.draw(SHAPE)
    assert not np.array_equal(first, second)
    again = NoiseStream(5)
    np.testing.assert_array_equal(first, again.draw(SHAPE))
    np.testing.assert_array_equal(second, again.draw(SHAPE))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 999), st.integers(0, 999))
def test_a_picture_is_the_first_of_the_seed_after(seed: int, one: int, two: int) -> None:
    assert image_seed(image_seed(seed, one), two) == image_seed(seed, one + two)
    assert 0 <= image_seed(seed, one) < 2**32


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_a_picture_does_not_depend_on_its_batch(seed: int, count: int) -> None:
    seeds = [image_seed(seed, index) for index in range(count)]
    streams = [NoiseStream(one) for one in seeds]
    alone = [NoiseStream(one) for one in seeds]
    for _ in range(2):
        batch = draw_batch(streams, SHAPE)
        assert batch.shape == (count, *SHAPE)
        for index, stream in enumerate(alone):
            np.testing.assert_array_equal(batch[index], stream.draw(SHAPE))
