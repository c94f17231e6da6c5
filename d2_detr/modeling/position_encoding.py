"""Sine position encoding on the plane of the picture (paper, section 3.2 and supplement A.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from d2_detr.utils.errors import InputError


class SinePositionEncoding(nn.Module):
    """Encode y and x, each by `hidden_dim / 2` sines and cosines of geometrically growing wavelength.

    Coordinates count the cells that are not padding and are scaled so that the last of them lies at 2 pi: the
    encoding of a picture does not depend on how far it was padded.
    """

    def __init__(self, hidden_dim: int, temperature: float = 10000.0):
        super().__init__()
        if hidden_dim % 4:
            raise InputError(f"hidden_dim {hidden_dim} is not divisible by 4 (sine and cosine of y and of x)")
        self.hidden_dim = hidden_dim
        self.temperature = temperature

    def forward(self, padding_mask: Tensor) -> Tensor:
        """padding_mask (B, H, W), True on padding -> encoding (B, hidden_dim, H, W), float32; y first, then x."""
        valid = (~padding_mask).float()
        y, x = (self._encode(valid.cumsum(dim), dim) for dim in (1, 2))
        return torch.cat((y, x), dim=3).permute(0, 3, 1, 2)

    def _encode(self, position: Tensor, dim: int) -> Tensor:
        """Positions (B, H, W), 1-based along `dim` -> (B, H, W, hidden_dim / 2), sine and cosine interleaved."""
        last = position.narrow(dim, position.shape[dim] - 1, 1)
        angle = position / (last + 1e-6) * (2 * math.pi)
        half = self.hidden_dim // 2
        exponent = torch.arange(0, half, 2, device=position.device, dtype=torch.float32) / half
        angle = angle[..., None] / self.temperature**exponent
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)
