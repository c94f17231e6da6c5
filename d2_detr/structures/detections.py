"""What is in a picture, or was found in it, on its own: no library's form."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Detections(NamedTuple):
    """Detections in one picture (H, W).

    boxes_xyxy (N, 4) in its pixels, NaN for what has none, as stuff; classes (N,) from 0; scores (N,), None for truth;
    masks (N, H, W), bool, None without; crowds (N,), bool, of truth: many objects in one box, None for none of these.
    """

    boxes_xyxy: np.ndarray
    classes: np.ndarray
    scores: np.ndarray | None = None
    masks: np.ndarray | None = None
    is_crowd: np.ndarray | None = None

    def select(self, which: np.ndarray) -> Detections:
        """Some of them: indices, or (N,) bool."""
        return Detections(*(None if values is None else values[which] for values in self))

    def above(self, threshold: float) -> Detections:
        """Those with at least this score."""
        return self.select(self.scores >= threshold)
