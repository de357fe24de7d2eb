from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx_lm.models import gpt2, llama, mixtral

from tests.conftest import tiny_config
from workers.language.decode_bytes import decode_facts, decode_weight_bytes
from workers.language.load import LanguageModel, parameter_bytes

VOCABULARY, WIDTH = 300, 64


def loaded(network: nn.Module, config: dict[str, Any]) -> LanguageModel:
    mx.eval(network.parameters())
    return LanguageModel(
        name="m", model=network, tokenizer=None, config=config, fingerprint="", bytes=0
    )


def llama_of(*, tied: bool, bits: int | None = None) -> LanguageModel:
    config: dict[str, Any] = tiny_config(VOCABULARY) | {"tie_word_embeddings": tied}
    network = llama.Model(llama.ModelArgs.from_dict(config))
    if bits is not None:
        nn.quantize(network, group_size=32, bits=bits)
    return loaded(network, config)


@pytest.mark.parametrize("bits", [None, 4])
def test_a_tied_embedding_is_read_whole(bits: int | None) -> None:
    model = llama_of(tied=True, bits=bits)
    assert decode_weight_bytes(model) == parameter_bytes(model.model)


@pytest.mark.parametrize("bits", [None, 4])
def test_an_embedding_beside_an_output_layer_is_only_looked_up(bits: int | None) -> None:
    model = llama_of(tied=False, bits=bits)
    table = parameter_bytes(model.model.model.embed_tokens)
    assert table > 0
    assert decode_facts(model) == {"decode_weight_bytes": parameter_bytes(model.model) - table}


def test_a_table_of_positions_is_only_looked_up() -> None:
    config = {
        "model_type": "gpt2",
        "n_ctx": 64,
        "n_embd": WIDTH,
        "n_head": 4,
        "n_layer": 2,
        "n_positions": 64,
        "layer_norm_epsilon": 1e-5,
        "vocab_size": VOCABULARY,
    }
    model = loaded(gpt2.Model(gpt2.ModelArgs.from_dict(config)), config)
    assert decode_weight_bytes(model) == parameter_bytes(model.model) - 64 * WIDTH * 4


def experts(**more: Any) -> LanguageModel:
    config = tiny_config(VOCABULARY) | {
        "model_type": "mixtral",
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "tie_word_embeddings": True,
    }
    network = mixtral.Model(mixtral.ModelArgs.from_dict(config))
    return loaded(network, {name: value for name, value in (config | more).items() if value})


def test_of_experts_those_that_a_token_passes_are_read() -> None:
    model = experts()
    layers = [block.block_sparse_moe.switch_mlp for block in model.model.layers]
    unread = sum(map(parameter_bytes, layers)) * 3 // 4
    assert decode_weight_bytes(model) == parameter_bytes(model.model) - unread


def test_an_unknown_number_of_experts_gives_no_number() -> None:
    assert decode_facts(experts(num_experts_per_tok=None)) == {}
