"""Augmentations are policies, mostly random ones, that look at an input and choose the deterministic transform for it.

numpy's global generator decides.
"""

import inspect
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from fvcore.transforms.transform import (
    CropTransform,  # noqa: F401
    HFlipTransform,
    NoOpTransform,
    Transform,
    TransformList,
    VFlipTransform,
)
from PIL import Image
from torch.nn import functional as F

_TORCH_MODES = {Image.NEAREST: "nearest", Image.BILINEAR: "bilinear", Image.BICUBIC: "bicubic"}


class ResizeTransform(Transform):
    """Resize (h, w) to (new_h, new_w) pixels. `interp` is a filter of Pillow's, bilinear by default.

    Pillow resizes uint8, torch everything else.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None):
        self.h, self.w, self.new_h, self.new_w = h, w, new_h, new_w
        self.interp = Image.BILINEAR if interp is None else interp

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """(h, w) or (h, w, C) -> (new_h, new_w) or (new_h, new_w, C)"""
        assert img.shape[:2] == (self.h, self.w), f"Expected an image of {self.h} x {self.w}, got {img.shape}"
        interp, new_shape = self.interp if interp is None else interp, (self.new_h, self.new_w, *img.shape[2:])
        if img.dtype == np.uint8:
            image = Image.fromarray(img[:, :, 0] if img.shape[2:] == (1,) else img)
            return np.asarray(image.resize((self.new_w, self.new_h), interp)).reshape(new_shape)
        channels = torch.from_numpy(np.ascontiguousarray(img)).reshape(1, self.h, self.w, -1).movedim(-1, 1)
        resized = F.interpolate(channels, new_shape[:2], mode=_TORCH_MODES[interp])
        return resized.movedim(1, -1).reshape(new_shape).numpy()

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale (N, 2) xy in place: an integer array keeps whole pixels."""
        coords[:, 0] = coords[:, 0] * (self.new_w / self.w)
        coords[:, 1] = coords[:, 1] * (self.new_h / self.h)
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, interp=Image.NEAREST)


class AugInput:
    """What augmentations look at and transform in place.

    image: (H, W[, C]), uint8 or floating point; boxes: (N, 4) xyxy in pixels; sem_seg: (H, W) labels.
    """

    def __init__(self, image: np.ndarray, *, boxes: np.ndarray | None = None, sem_seg: np.ndarray | None = None):
        self.image, self.boxes, self.sem_seg = image, boxes, sem_seg

    def transform(self, tfm: Transform) -> None:
        self.image = tfm.apply_image(self.image)
        self.boxes = None if self.boxes is None else tfm.apply_box(self.boxes)
        self.sem_seg = None if self.sem_seg is None else tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(self, augmentations: "list[Augmentation | Transform]") -> TransformList:
        return AugmentationList(augmentations)(self)


class Augmentation:
    """Base of the policies. A subclass writes `get_transform`, whose arguments are what it looks at.

    A single argument is the image; several are attributes of `AugInput`, by name.
    """

    def get_transform(self, *args: Any) -> Transform:
        raise NotImplementedError(f"{type(self).__name__} has no get_transform")

    def __call__(self, aug_input: AugInput) -> Transform:
        """Transform `aug_input` in place; return the transform for all that belongs to it."""
        names = list(inspect.signature(self.get_transform).parameters)
        tfm = self.get_transform(*(getattr(aug_input, name) for name in (["image"] if len(names) == 1 else names)))
        aug_input.transform(tfm)
        return tfm

    def _init(self, params: dict[str, Any]) -> None:
        """Keep the constructor's arguments, given as `locals()`, under their names."""
        vars(self).update({k: v for k, v in params.items() if k != "self" and not k.startswith("_")})

    def __repr__(self) -> str:
        """`Name(argument=value, ...)`, without the defaults."""
        parameters = inspect.signature(self.__init__).parameters
        given = {name: getattr(self, name) for name in parameters if hasattr(self, name)}
        shown = [f"{name}={value!r}" for name, value in given.items() if value is not parameters[name].default]
        return f"{type(self).__name__}({', '.join(shown)})"


class AugmentationList(Augmentation):
    """Augmentations or transforms in sequence, each looking at what those before it made of the input."""

    def __init__(self, augs: Iterable[Augmentation | Transform]):
        self.augs = list(augs)

    def __call__(self, aug_input: AugInput) -> TransformList:
        return TransformList([self._apply(aug, aug_input) for aug in self.augs])

    def _apply(self, aug: Augmentation | Transform, aug_input: AugInput) -> Transform:
        if not isinstance(aug, Transform):
            return aug(aug_input)
        aug_input.transform(aug)
        return aug

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(map(str, self.augs))}]"


class RandomFlip(Augmentation):
    """Swap left and right (`horizontal`) or top and bottom (`vertical`) with probability `prob`."""

    def __init__(self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False):
        if horizontal == vertical:
            raise ValueError("RandomFlip is either horizontal or vertical; for both, take two of them")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        if np.random.uniform() >= self.prob:
            return NoOpTransform()
        return HFlipTransform(width) if self.horizontal else VFlipTransform(height)


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
