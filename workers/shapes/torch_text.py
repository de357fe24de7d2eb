"""CLIP's text encoder in PyTorch, for ``train_torch``.

Transformers' own makes its masks on the host, which a CUDA graph cannot hold; names are the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class TextEncoder(nn.Module):
    """CLIP's text encoder with transformers' names, without masks made on the host."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.embeddings = nn.ModuleDict(
            {
                "token_embedding": nn.Embedding(config["vocab_size"], width),
                "position_embedding": nn.Embedding(config["max_position_embeddings"], width),
            }
        )
        layers = [_Layer(config) for _ in range(config["num_hidden_layers"])]
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.final_layer_norm = nn.LayerNorm(width, eps=config["layer_norm_eps"])
        for embedding in self.embeddings.values():
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Encode (batch, length) tokens as (batch, length, width)."""
        hidden = self.embeddings["token_embedding"](tokens)
        hidden = hidden + self.embeddings["position_embedding"].weight[: tokens.shape[1]]
        for layer in self.encoder["layers"]:
            hidden = layer(hidden)
        return self.final_layer_norm(hidden)


class _Layer(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, inner, eps = (
            config[key] for key in ("hidden_size", "intermediate_size", "layer_norm_eps")
        )
        self.heads = config["num_attention_heads"]
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.self_attn = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.layer_norm1 = nn.LayerNorm(width, eps=eps)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})
        self.layer_norm2 = nn.LayerNorm(width, eps=eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        normed = self.layer_norm1(x)
        parts = (
            self.self_attn[name](normed).view(shape).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        mixed = functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.self_attn["out_proj"](mixed.transpose(1, 2).reshape(x.shape))
        inner = self.mlp["fc1"](self.layer_norm2(x))
        return x + self.mlp["fc2"](inner * torch.sigmoid(1.702 * inner))
