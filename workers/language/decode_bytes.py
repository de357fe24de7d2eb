"""How many bytes of weights are read to decode one token: the divisor of the bandwidth's ceiling.

The rule this module protects: the number is never larger than what is really read, or it is not
given. A ceiling that is too low would call a right measurement wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlx import nn
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

from workers.language.load import LanguageModel, parameter_bytes

_EMBEDDINGS = (nn.Embedding, nn.QuantizedEmbedding)
_LINEAR = (nn.Linear, nn.QuantizedLinear)
_EXPERTS = (SwitchLinear, QuantizedSwitchLinear)

# The names that mlx-lm's configurations have for the number of experts that a token passes.
_EXPERTS_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k")


def decode_facts(model: LanguageModel) -> Mapping[str, int]:
    """Return ``decode_weight_bytes`` as a fact of a run; nothing where it cannot be told."""
    count = decode_weight_bytes(model)
    return {} if count is None else {"decode_weight_bytes": count}


def decode_weight_bytes(model: LanguageModel) -> int | None:
    """Return the bytes of weights that one token reads at batch 1, as they lie in memory.

    All weights, but: of tables that are looked up one row counts as nothing (the input embedding
    counts whole where it is the output layer, too), and of a layer of experts those that one token
    passes. The keys and values of earlier tokens are not counted. None: the configuration does not
    say how many experts a token passes.
    """
    unread = _looked_up(model.model)
    experts = list(_of_kind(model.model, _EXPERTS))
    passed = _experts_per_token(model.config)
    if experts and passed is None:
        return None
    for layer in experts:
        count = int(layer.weight.shape[0])
        unread += parameter_bytes(layer) * max(0, count - (passed or count)) // count
    return parameter_bytes(model.model) - unread


def _looked_up(network: nn.Module) -> int:
    """Return the bytes of embeddings that are looked up only; the longest is that of the tokens."""
    tables = list(_of_kind(network, _EMBEDDINGS))
    rows = max((int(table.weight.shape[0]) for table in tables), default=0)
    heads = [layer for layer in _of_kind(network, _LINEAR) if int(layer.weight.shape[0]) == rows]
    return sum(
        parameter_bytes(table) for table in tables if heads or int(table.weight.shape[0]) < rows
    )


def _of_kind(network: nn.Module, kinds: tuple[type[Any], ...]) -> Iterator[Any]:
    return (module for _, module in network.named_modules() if isinstance(module, kinds))


def _experts_per_token(config: Mapping[str, Any]) -> int | None:
    nested = config.get("text_config")
    for settings in (config, nested if isinstance(nested, dict) else {}):
        for name in _EXPERTS_PER_TOKEN:
            if isinstance(settings.get(name), int):
                return int(settings[name])
    return None
