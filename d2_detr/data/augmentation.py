"""DETR's training augmentation (paper, supplement A.4).

Flip and resize; for half of the images flip, resize, crop and resize.
"""

from __future__ import annotations

import numpy as np

from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode
from detectron2.data import transforms as T

# Shortest edges in pixels before the crop; constants in native DETR, too.
SIZES_BEFORE_CROP = (400, 500, 600)
# Longest edge in pixels before the crop. Native DETR has no limit: an image of 20,000 x 1 pixels would take 10 GB.
MAX_SIZE_BEFORE_CROP = 20_000


class ResizeShortestEdge(T.ResizeShortestEdge):
    """Detectron2's resize; of an image that is much longer than high, no edge is rounded to 0 pixels."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw a resize of an image (H, W, C)."""
        transform = super().get_transform(image)
        if isinstance(transform, T.ResizeTransform):
            transform.new_h, transform.new_w = max(transform.new_h, 1), max(transform.new_w, 1)
        return transform


class Crop(T.CropTransform):
    """A crop that translates polygons without clipping them.

    Rasterizing clips them anyway. The clipping of CropTransform needs shapely, and splits polygons at the border.
    """

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        """Translate polygons (P, 2) in pixels."""
        return [self.apply_coords(polygon) for polygon in polygons]


class RandomCrop(T.Augmentation):
    """Crop a rectangle of random size and position.

    Height and width are drawn independently and uniformly from [min_size, max_size] pixels, or up to the side of the
    image if that is smaller. An image side below `min_size` is not cropped (native DETR raises an error). The position
    is uniform.
    """

    def __init__(self, min_size: int, max_size: int):
        """Initialize the augmentation."""
        super().__init__()
        if not 0 < min_size <= max_size:
            raise InputError(f"crop sizes {min_size}..{max_size}: expected 0 < smallest <= largest")
        self.min_size = min_size
        self.max_size = max_size

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw a crop of an image (H, W, C)."""
        (y, height), (x, width) = (self._interval(side) for side in image.shape[:2])
        return Crop(x, y, width, height)

    def _interval(self, side: int) -> tuple[int, int]:
        """Draw the start and the length of the crop along a side."""
        length = np.random.randint(min(side, self.min_size), min(side, self.max_size) + 1)
        return np.random.randint(side - length + 1), length


def build_augmentations(cfg: CfgNode, is_train: bool) -> tuple[list[T.Augmentation], list[T.Augmentation] | None]:
    """Build the augmentations of a config.

    Returns:
        The augmentations without the crop, and those with it, which are None if the crop is off.

    Raises:
        InputError: INPUT.CROP does not describe DETR's crop.
    """
    if not is_train:
        return [ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)], None
    flip = _flip(cfg.INPUT.RANDOM_FLIP)
    resize = ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING)
    if not cfg.INPUT.CROP.ENABLED:
        return [*flip, resize], None
    if cfg.INPUT.CROP.TYPE != "absolute_range":
        raise InputError(
            f'INPUT.CROP.TYPE {cfg.INPUT.CROP.TYPE!r}: DETR crops by "absolute_range", where SIZE is the smallest and '
            "the largest side in pixels; set it, or INPUT.CROP.ENABLED False"
        )
    if len(cfg.INPUT.CROP.SIZE) != 2:
        raise InputError(f"INPUT.CROP.SIZE {cfg.INPUT.CROP.SIZE}: expected the smallest and the largest side in pixels")
    min_size, max_size = (int(size) for size in cfg.INPUT.CROP.SIZE)
    crop = [ResizeShortestEdge(SIZES_BEFORE_CROP, MAX_SIZE_BEFORE_CROP, "choice"), RandomCrop(min_size, max_size)]
    return [*flip, resize], [*flip, *crop, resize]


def _flip(direction: str) -> list[T.Augmentation]:
    if direction == "none":
        return []
    return [T.RandomFlip(horizontal=direction == "horizontal", vertical=direction == "vertical")]
