"""Detections or ground truth of one image, independent of any library's form."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Detections(NamedTuple):
    """Detections or ground truth in one image (H, W)."""

    boxes_xyxy: np.ndarray  # (N, 4), in pixels; NaN for stuff, which has no box
    classes: np.ndarray  # (N,), contiguous ids from 0
    scores: np.ndarray | None = None  # (N,), in [0, 1]; None for ground truth
    masks: np.ndarray | None = None  # (N, H, W), bool
    is_crowd: np.ndarray | None = None  # (N,), bool: several objects in one box; None if there are no such boxes
