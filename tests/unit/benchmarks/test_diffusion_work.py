from __future__ import annotations

import pytest

from benchmarks.diffusion_models import unet_config
from benchmarks.diffusion_work import unet_work
from benchmarks.startup import SHAPES
from tests.references.families import UNETS
from workers.diffusion.configs import UNetConfig


def test_the_command_line_offers_the_known_shapes() -> None:
    assert all(unet_config(shape) for shape in SHAPES)


# What torch.utils.flop_counter counts for diffusers' UNet2DConditionModel of each configuration:
# one row, 77 tokens.
@pytest.mark.parametrize(
    ("shape", "operations"),
    [
        ("sd15", 803_273_441_280),
        ("sd21", 804_257_464_320),
        ("sdxl", 6_761_236_398_080),
        ("shapes", 311_255_040),
    ],
)
def test_work_of_the_known_shapes(shape: str, operations: int) -> None:
    config = UNetConfig.read(shape, unet_config(shape))
    assert unet_work(config, *config.sample_size).total == operations


# The same for latents of 24 by 20.
@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("sd1", 246_966_784),
        ("sd2", 156_356_096),
        ("sdxl", 204_276_736),
        ("sdxl-integer-depth", 124_344_832),
        ("sdxl-distilled", 158_351_872),
        ("odd-widths", 303_487_104),
        ("no-attention", 139_563_008),
        ("no-middle", 401_476_096),
        ("one-block", 328_871_936),
        ("upcast-attention", 414_299_136),
        ("centered", 414_299_136),
        ("cosine-last", 414_299_136),
        ("other-padding", 414_299_136),
        ("only-cross", 1_537_314_816),
        ("two-contexts", 492_856_320),
        ("inpainting", 415_681_536),
        ("guidance-embedding", 414_300_160),
        ("gelu", 414_199_296),
        ("mish", 414_299_136),
        ("other-kernels", 418_354_176),
    ],
)
def test_work_of_odd_networks(name: str, operations: int) -> None:
    assert unet_work(UNetConfig.read(name, UNETS[name]), 24, 20).total == operations


def test_work_of_rows_that_do_not_halve() -> None:
    config = UNetConfig.read("sd1", UNETS["sd1"])
    assert unet_work(config, 25, 19).total == 255_436_288
