"""A configuration is refused if it tells of more layers than the weights can have."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.errors import ModelError
from daemon.layer_count import check_layer_count

TWO = ["model.embed_tokens.weight", "model.layers.0.mlp.weight", "model.layers.1.mlp.weight"]


@pytest.mark.parametrize(
    ("config", "tensors"),
    [
        ({"num_hidden_layers": 2}, TWO),
        ({"num_hidden_layers": 1}, TWO),
        ({}, TWO),
        ({"num_hidden_layers": "2"}, TWO),
        ({"num_hidden_layers": True}, []),
        ({"n_layer": 2}, ["transformer.h.0.ln_1.weight", "transformer.h.1.ln_1.weight"]),
        ({"num_hidden_layers": 2}, ["backbone.layers.1.norm.weight"]),
        ({"num_layers": 12}, ["encoder.block.11.layer.0.weight"]),
        ({"text_config": {"num_hidden_layers": 2}}, [f"language_model.{name}" for name in TWO]),
        ({"text_config": [], "num_hidden_layers": 2}, TWO),
        ({"num_hidden_layers": 3}, ["a", "b", "c"]),
    ],
)
def test_layers_that_are_there_pass(config: dict[str, Any], tensors: list[str]) -> None:
    check_layer_count("mine", "config.json", config, tensors)


@pytest.mark.parametrize(
    ("config", "tensors", "said"),
    [
        ({"num_hidden_layers": 3}, TWO, "tells of 3 layers, and the weights have 2"),
        ({"num_hidden_layers": 20_000}, TWO, "tells of 20000 layers, and the weights have 2"),
        ({"num_hidden_layers": 10**5000}, TWO, "more than 10^15 layers"),
        ({"text_config": {"n_layers": 9}}, TWO, "tells of 9 layers, and the weights have 2"),
        ({"num_hidden_layers": 4}, ["a", "b", "c"], "4 layers, and the weights have 3 tensors"),
        ({"num_hidden_layers": 9}, ["layers." + "9" * 5000 + ".a"], "have 1 tensors"),
    ],
)
def test_layers_that_are_not_there_are_counted(
    config: dict[str, Any], tensors: list[str], said: str
) -> None:
    with pytest.raises(ModelError) as refused:
        check_layer_count("mine", "config.json", config, tensors)
    assert refused.value.message.startswith("mine is wrong: config.json tells of ")
    assert said in refused.value.message
    assert refused.value.remedy
