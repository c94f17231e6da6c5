"""The transformer of DETR (paper, section 3.2 and supplement A.3).

It differs from `torch.nn.Transformer` in three ways: position encodings are added to queries and keys in every layer,
a post-norm encoder has no final norm, and the decoder returns the normalized states of all its layers.

Shape shorthand: B images, S = H * W cells of the feature map, Q object queries, C = hidden_dim, L decoder layers.
Parameter names are those of the native code, so that published checkpoints load.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2_detr.modeling.attention import MultiheadAttention
from d2_detr.modeling.checkpointing import run_block
from d2_detr.modeling.dropout import Dropout
from d2_detr.utils.errors import InputError


class Transformer(nn.Module):
    """Encode the cells of a feature map and decode object queries against them."""

    def __init__(
        self,
        *,
        hidden_dim: int = 256,
        num_heads: int = 8,
        dim_feedforward: int = 2048,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        dropout: float = 0.1,
        pre_norm: bool = False,
        checkpoint_activations: bool = False,
    ):
        super().__init__()
        if hidden_dim % num_heads:
            raise InputError(f"hidden_dim {hidden_dim} is not divisible by num_heads {num_heads}")
        layer = (hidden_dim, num_heads, dim_feedforward, dropout, pre_norm)
        self.hidden_dim = hidden_dim
        self.num_heads = num_heads
        self.encoder = Encoder(
            [EncoderLayer(*layer) for _ in range(encoder_layers)],
            nn.LayerNorm(hidden_dim) if pre_norm else None,
            checkpoint_activations,
        )
        self.decoder = Decoder(
            [DecoderLayer(*layer) for _ in range(decoder_layers)], nn.LayerNorm(hidden_dim), checkpoint_activations
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, features: Tensor, position: Tensor, padding_mask: Tensor | None, queries: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode the queries against the encoded features.

        Args:
            features: (B, C, H, W).
            position: (B or 1, C, H, W), position encoding.
            padding_mask: (B, H, W), True on padding, which is never attended to; None if there is none.
            queries: (Q, C), the learned query embedding.

        Returns:
            The states (L, B, Q, C) of every decoder layer, and the memory (B, C, H, W).
        """
        shape = features.shape
        features, position = (x.flatten(2).transpose(1, 2) for x in (features, position))
        if padding_mask is not None:
            padding_mask = padding_mask.flatten(1)
        position = position.to(features.dtype)  # or else the sum is float32 under autocast, and converted in each layer
        queries = queries.expand(shape[0], -1, -1)

        memory = self.encoder(features, position, padding_mask)
        states = self.decoder(torch.zeros_like(queries), queries, memory, position, padding_mask)
        return states, memory.transpose(1, 2).reshape(shape)


class Encoder(nn.Module):
    """A stack of encoder layers, with an optional final norm."""

    def __init__(self, layers: list[EncoderLayer], norm: nn.LayerNorm | None, checkpoint_activations: bool = False):
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(self, features: Tensor, position: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Return the memory (B, S, C) of features (B, S, C)."""
        for layer in self.layers:
            features = run_block(layer, features, position, padding_mask, recompute=self.checkpoint_activations)
        return features if self.norm is None else self.norm(features)


class Decoder(nn.Module):
    """A stack of decoder layers, with a norm for the output of each."""

    def __init__(self, layers: list[DecoderLayer], norm: nn.LayerNorm, checkpoint_activations: bool = False):
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(
        self, states: Tensor, queries: Tensor, memory: Tensor, position: Tensor, padding_mask: Tensor | None
    ) -> Tensor:
        """Return the normalized states (L, B, Q, C) of every layer."""
        outputs = []
        for layer in self.layers:
            states = run_block(
                layer, states, queries, memory, position, padding_mask, recompute=self.checkpoint_activations
            )
            outputs.append(self.norm(states))
        return torch.stack(outputs)


class _Layer(nn.Module):
    """Feed-forward block and residual connection, with the norm before or after."""

    def __init__(self, hidden_dim: int, dim_feedforward: int, dropout: float, pre_norm: bool):
        super().__init__()
        self.pre_norm = pre_norm
        self.linear1 = nn.Linear(hidden_dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, hidden_dim)
        self.dropout = Dropout(dropout)

    def residual(self, x: Tensor, block: Callable[[Tensor], Tensor], norm: nn.LayerNorm) -> Tensor:
        if self.pre_norm:
            return x + self.dropout(block(norm(x)))
        return norm(x + self.dropout(block(x)))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(F.relu_(self.linear1(x))))


class EncoderLayer(_Layer):
    """Self-attention and feed-forward block."""

    def __init__(self, hidden_dim: int, num_heads: int, dim_feedforward: int, dropout: float, pre_norm: bool):
        super().__init__(hidden_dim, dim_feedforward, dropout, pre_norm)
        self.self_attn = MultiheadAttention(hidden_dim, num_heads, dropout)
        self.norm1, self.norm2 = (nn.LayerNorm(hidden_dim) for _ in range(2))

    def forward(self, features: Tensor, position: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Return the features (B, S, C) of the next layer."""

        def attend(x: Tensor) -> Tensor:
            query = key = x + position
            return self.self_attn(query, key, x, padding_mask)

        features = self.residual(features, attend, self.norm1)
        return self.residual(features, self.feed_forward, self.norm2)


class DecoderLayer(_Layer):
    """Self-attention, attention to the memory, and feed-forward block."""

    def __init__(self, hidden_dim: int, num_heads: int, dim_feedforward: int, dropout: float, pre_norm: bool):
        super().__init__(hidden_dim, dim_feedforward, dropout, pre_norm)
        self.self_attn = MultiheadAttention(hidden_dim, num_heads, dropout)
        self.multihead_attn = MultiheadAttention(hidden_dim, num_heads, dropout)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(hidden_dim) for _ in range(3))

    def forward(
        self, states: Tensor, queries: Tensor, memory: Tensor, position: Tensor, padding_mask: Tensor | None
    ) -> Tensor:
        """Return the states (B, Q, C) of the next layer."""

        def attend_queries(x: Tensor) -> Tensor:
            query = key = x + queries
            return self.self_attn(query, key, x)

        def attend_memory(x: Tensor) -> Tensor:
            return self.multihead_attn(x + queries, memory + position, memory, padding_mask)

        states = self.residual(states, attend_queries, self.norm1)
        states = self.residual(states, attend_memory, self.norm2)
        return self.residual(states, self.feed_forward, self.norm3)
