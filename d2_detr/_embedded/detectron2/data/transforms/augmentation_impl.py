"""Flips and resizes; numpy's global generator decides."""

import sys
from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform, VFlipTransform
from PIL import Image

from .augmentation import Augmentation
from .transform import ResizeTransform

__all__ = ["RandomFlip", "Resize", "ResizeShortestEdge"]


class RandomFlip(Augmentation):
    """Swap left and right (`horizontal`) or top and bottom (`vertical`) with probability `prob`."""

    def __init__(self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False):
        if horizontal == vertical:
            raise ValueError("RandomFlip is either horizontal or vertical; for both, take two of them")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        if self._rand_range() >= self.prob:
            return NoOpTransform()
        return HFlipTransform(width) if self.horizontal else VFlipTransform(height)


class Resize(Augmentation):
    """Resize to `shape`: (h, w), or one int for a square."""

    def __init__(self, shape: int | tuple[int, int], interp: int = Image.BILINEAR):
        shape = (shape, shape) if isinstance(shape, int) else tuple(shape)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        return ResizeTransform(*image.shape[:2], *self.shape, self.interp)


class ResizeShortestEdge(Augmentation):
    """Scale to a sampled length of the shorter edge, the longer one being `max_size` pixels at most.

    `short_edge_length`: [min, max], both included, for `sample_style` "range"; all lengths to choose from for "choice".
    """

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = Image.BILINEAR,
    ):
        assert sample_style in ("range", "choice"), f"sample_style is 'range' or 'choice', got '{sample_style}'"
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        if sample_style == "range":
            assert len(short_edge_length) == 2, f"A range is [min, max], got {short_edge_length}"
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        lengths = self.short_edge_length
        is_range = self.sample_style == "range"
        length = np.random.randint(lengths[0], lengths[1] + 1) if is_range else np.random.choice(lengths)
        if length == 0:  # which means: as it is
            return NoOpTransform()
        h, w = image.shape[:2]
        return ResizeTransform(h, w, *self.get_output_shape(h, w, length, self.max_size), self.interp)

    @staticmethod
    def get_output_shape(oldh: int, oldw: int, short_edge_length: int, max_size: int) -> tuple[int, int]:
        """The new (height, width), halves rounded up."""
        short, long = float(short_edge_length), short_edge_length / min(oldh, oldw) * max(oldh, oldw)
        if long > max_size:
            short, long = short * (max_size / long), long * (max_size / long)
        height, width = (short, long) if oldh < oldw else (long, short)
        return int(height + 0.5), int(width + 0.5)
