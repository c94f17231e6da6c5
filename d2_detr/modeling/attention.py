"""Multi-head attention (Vaswani et al. 2017, section 3.2.2).

Shape shorthand: B images, Q queries, S keys, C = hidden_dim, D = C / heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2_detr.modeling.dropout import Dropout


class MultiheadAttention(nn.Module):
    """What `nn.MultiheadAttention` computes, with the same parameters, in fewer operations.

    Under autocast in inference, torch's module copies its weights so often that the whole network takes twice as long.
    """

    def __init__(self, hidden_dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden_dim, hidden_dim))  # of queries, keys and values
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * hidden_dim))
        self.out_proj = nn.Linear(hidden_dim, hidden_dim)
        self.dropout = Dropout(dropout)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Attend from `query` (B, Q, C) to `key` and `value` (B, S, C).

        Keys where `padding_mask` (B, S) is True are ignored.

        The fused kernel keeps no weights, which for one layer at 2048 x 2048 pixels would take half a gigabyte. On the
        CPU its backward pass is slower than that of the plain products, so there it is used only without gradients.
        """
        queries, keys = self._project_queries_keys(query, key)
        weight, bias = self.in_proj_weight, self.in_proj_bias
        channels = query.shape[-1]
        values = self._split_heads(F.linear(value, weight[2 * channels :], bias[2 * channels :]))
        if torch.is_grad_enabled() and not query.is_cuda:
            attended = self.dropout(_softmax_weights(queries, keys, padding_mask)) @ values
        else:
            attended = F.scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=None if padding_mask is None else ~padding_mask[:, None, None],
                dropout_p=self.dropout.p if self.training else 0.0,
            )
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def weights(self, query: Tensor, key: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Return the attention (B, heads, Q, S) of each query (B, Q, C) to each key (B, S, C), without dropout."""
        return _softmax_weights(*self._project_queries_keys(query, key), padding_mask)

    def _project_queries_keys(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        channels = query.shape[-1]
        weight, bias = self.in_proj_weight[: 2 * channels], self.in_proj_bias[: 2 * channels]
        if query is key:
            projected = F.linear(query, weight, bias).chunk(2, dim=-1)
        else:
            projected = tuple(
                F.linear(x, w, b) for x, w, b in zip((query, key), weight.chunk(2), bias.chunk(2), strict=True)
            )
        return self._split_heads(projected[0]), self._split_heads(projected[1])

    def _split_heads(self, x: Tensor) -> Tensor:
        """Reshape (B, S, C) to (B, heads, S, D)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _softmax_weights(queries: Tensor, keys: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Return softmax(QK^T / sqrt(D)) (B, heads, Q, S) of projected queries and keys (B, heads, *, D)."""
    logits = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    if padding_mask is not None:
        logits = logits.masked_fill_(padding_mask[:, None, None], float("-inf"))
    return logits.softmax(-1)
