from __future__ import annotations

import pytest

from daemon.bench import tutorial
from daemon.bench.bandwidth import measured, published, room_for_measuring
from daemon.bench.ceiling import Ceiling
from daemon.bench.tables import ceiling_of, page
from tests.unit.bench.records import decoding, record

MISTRAL_F16, MISTRAL_4BIT = 14.22e9, 4.00e9


@pytest.mark.parametrize(
    ("chip", "weights", "tokens"),
    [
        ("Apple M2 Max", MISTRAL_F16, 28.1),
        ("Apple M4 Max", MISTRAL_F16, 38.4),
        ("Apple M2 Ultra", MISTRAL_F16, 56.3),
        ("Apple M3 Ultra", MISTRAL_F16, 57.6),
        ("Apple M2 Max", MISTRAL_4BIT, 100),
        ("Apple M2 Ultra", MISTRAL_4BIT, 200),
    ],
)
def test_the_known_ceilings(chip: str, weights: float, tokens: float) -> None:
    ceiling = Ceiling(rate=1.0, bytes_per_token=weights, bandwidth=published(chip))
    assert ceiling.tokens_per_second == pytest.approx(tokens, rel=2e-3)
    assert not ceiling.is_exceeded


def test_the_tutorials_thirty_tokens_on_an_m2_max_are_a_measuring_error() -> None:
    found = tutorial.M2_MAX.result("infer")
    assert found is not None
    ceiling = ceiling_of(tutorial.M2_MAX.machine, found)
    assert ceiling is not None
    assert ceiling.is_exceeded
    assert ceiling.share == pytest.approx(30 / 28.13, rel=1e-3)
    said = ceiling.complaint("the tutorial's M2 Max")
    assert said is not None
    assert said.startswith(
        "the tutorial's M2 Max: 30 tok/s is above the ceiling of 28.13 (400 GB/s"
    )


@pytest.mark.parametrize(("rate", "exceeded"), [(39.9, False), (40.1, False), (40.3, True)])
def test_a_rate_above_the_ceiling_is_flagged_beyond_rounding(rate: float, exceeded: bool) -> None:
    ceiling = Ceiling(rate=rate, bytes_per_token=500e6, bandwidth=20e9)
    assert ceiling.is_exceeded is exceeded
    assert (ceiling.complaint("this machine") is not None) is exceeded


def test_this_machines_own_error_is_flagged_in_its_row_and_told_below() -> None:
    lines = list(page(record(decoding(50.0)), None))
    (row,) = (line for line in lines if line.startswith("this machine"))
    assert "50 !" in row
    assert "125%" in row
    assert any(line.startswith("! this machine: 50 tok/s is above") for line in lines)


@pytest.mark.parametrize(
    ("weights", "bandwidth"), [(None, 20e9), (500_000_000, None), (None, None)]
)
def test_what_is_not_known_gives_no_ceiling_and_no_error(
    weights: int | None, bandwidth: float | None
) -> None:
    run = record(decoding(1e9, weights=weights), bandwidth=bandwidth)
    (row,) = (line for line in page(run, None) if line.startswith("this machine"))
    assert "!" not in row
    assert row.split()[-2:] == ["-", "-"]


@pytest.mark.parametrize(
    ("device", "rate"),
    [
        ("Apple M1", 68.25),
        ("Apple M4 Pro", 273),
        ("NVIDIA H100 80GB HBM3", 3350),
        ("NVIDIA H100 PCIe", 2000),
        ("NVIDIA H100 NVL", 3900),
        ("NVIDIA H200", 4800),
        ("NVIDIA A100-SXM4-80GB", 2039),
        ("NVIDIA A100 80GB PCIe", 1935),
        ("NVIDIA A100-PCIE-40GB", 1555),
        ("NVIDIA GeForce RTX 4090", 1008),
        ("NVIDIA L4", 300),
        ("NVIDIA L40S", 864),
    ],
)
def test_the_bandwidth_of_a_chip_is_its_makers(device: str, rate: float) -> None:
    assert published(device) == rate * 1e9


@pytest.mark.parametrize(
    "device", ["Apple M9 Ultra", "AMD EPYC", "", "NVIDIA GeForce RTX 4090 Laptop GPU", "M2 Max"]
)
def test_an_unknown_chip_has_no_guessed_bandwidth(device: str) -> None:
    assert published(device) is None


def test_a_read_of_memory_is_measured_by_its_fastest_round() -> None:
    readings = iter(float(tick) for tick in (0, 4, 10, 12, 20, 23, *range(30, 60)))
    assert measured(1 << 20, clock=lambda: next(readings)) == (1 << 20) / 1
    assert measured(1 << 22) > 1e8
    assert room_for_measuring(1 << 20) == 1 << 20
