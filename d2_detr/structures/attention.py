"""Attention of DETR in one image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Attention(NamedTuple):
    """Attention weights on the h x w cells of the feature map; those of each cell or query sum to 1.

    Attributes:
        encoder: (h, w, h, w), float32: from each cell to all cells.
        decoder: (Q, h, w), float32: from each query to all cells.
    """

    encoder: np.ndarray
    decoder: np.ndarray

    def from_point(self, x: float, y: float) -> np.ndarray:
        """Return the encoder's weights (h, w) from the cell of a point, x and y in [0, 1] of the image."""
        height, width = self.encoder.shape[:2]
        return self.encoder[min(int(y * height), height - 1), min(int(x * width), width - 1)]
