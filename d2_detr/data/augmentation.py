"""DETR's training augmentation (paper, supplement A.4): flip, and in half of the cases resize, crop, resize."""

from __future__ import annotations

import numpy as np

from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode
from detectron2.data import transforms as T

# Shortest edges before the crop; fixed in native DETR.
SIZES_BEFORE_CROP = (400, 500, 600)


class Crop(T.CropTransform):
    """A crop that moves polygons without cutting them: what is drawn from them ends at the border anyway.

    The cutting of CropTransform needs shapely, and splits polygons at the border.
    """

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        return [self.apply_coords(polygon) for polygon in polygons]


class RandomCrop(T.Augmentation):
    """Crop a rectangle whose two sides are drawn on their own, uniformly from `min_size`..`max_size` pixels.

    Both ends are included. A side of the picture that is shorter than `max_size` bounds the range, and one that is
    shorter than `min_size` is kept whole (native DETR stops with an error there). The position is uniform.
    """

    def __init__(self, min_size: int, max_size: int):
        super().__init__()
        if not 0 < min_size <= max_size:
            raise InputError(f"crop sizes {min_size}..{max_size}: expected 0 < smallest <= largest")
        self.min_size = min_size
        self.max_size = max_size

    def get_transform(self, image: np.ndarray) -> T.Transform:
        (y, height), (x, width) = (self._interval(side) for side in image.shape[:2])
        return Crop(x, y, width, height)

    def _interval(self, side: int) -> tuple[int, int]:
        """Start and length of the part of a side that is kept."""
        length = np.random.randint(min(side, self.min_size), min(side, self.max_size) + 1)
        return np.random.randint(side - length + 1), length


def build_augmentations(cfg: CfgNode, is_train: bool) -> tuple[list[T.Augmentation], list[T.Augmentation] | None]:
    """The augmentations of a picture, and those of the half of the pictures that is cropped (None: no crop)."""
    if not is_train:
        return [T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)], None
    flip = _flip(cfg.INPUT.RANDOM_FLIP)
    resize = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING)
    if not cfg.INPUT.CROP.ENABLED:
        return [*flip, resize], None
    if cfg.INPUT.CROP.TYPE != "absolute_range":
        raise InputError(
            f'INPUT.CROP.TYPE {cfg.INPUT.CROP.TYPE!r}: DETR crops by "absolute_range", SIZE being the smallest and the '
            "largest side in pixels; or set INPUT.CROP.ENABLED False"
        )
    if len(cfg.INPUT.CROP.SIZE) != 2:
        raise InputError(f"INPUT.CROP.SIZE {cfg.INPUT.CROP.SIZE}: expected the smallest and the largest side in pixels")
    min_size, max_size = (int(size) for size in cfg.INPUT.CROP.SIZE)
    crop = [T.ResizeShortestEdge(SIZES_BEFORE_CROP, sample_style="choice"), RandomCrop(min_size, max_size)]
    return [*flip, resize], [*flip, *crop, resize]


def _flip(choice: str) -> list[T.Augmentation]:
    if choice == "none":
        return []
    return [T.RandomFlip(horizontal=choice == "horizontal", vertical=choice == "vertical")]
