"""Sine position encoding in two dimensions (paper, 3.2 and supplement A.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from d2_detr.utils.errors import InputError

TEMPERATURE = 10000.0


class SinePositionEncoding(nn.Module):
    """Encode y and x by sines and cosines of geometrically growing wavelength.

    Coordinates count the cells that are not padding, scaled so that the last one is at 2 pi. The encoding of an image
    therefore does not depend on its padding.
    """

    def __init__(self, hidden_dim: int):
        super().__init__()
        if hidden_dim % 4:
            raise InputError(f"hidden_dim {hidden_dim} is not divisible by 4 (sine and cosine of y and x)")
        self.hidden_dim = hidden_dim

    def forward(self, padding_mask: Tensor) -> Tensor:
        """Return (B, hidden_dim, H, W), float32, y before x, given a mask (B, H, W)."""
        valid = (~padding_mask).float()
        y, x = (self._encode(valid.cumsum(dim), dim) for dim in (1, 2))
        return torch.cat((y, x), dim=3).permute(0, 3, 1, 2)

    def _encode(self, position: Tensor, dim: int) -> Tensor:
        """Encode positions (B, H, W), from 1 along `dim`, as (B, H, W, hidden_dim / 2)."""
        last = position.narrow(dim, position.shape[dim] - 1, 1)
        angle = position / (last + 1e-6) * (2 * math.pi)
        half = self.hidden_dim // 2
        exponent = torch.arange(0, half, 2, device=position.device, dtype=torch.float32) / half
        angle = angle[..., None] / TEMPERATURE**exponent
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)
