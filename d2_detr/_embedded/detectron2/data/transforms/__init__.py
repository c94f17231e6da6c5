"""Deterministic transforms, and augmentations, which choose one for an input."""

import inspect
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from fvcore.transforms.transform import CropTransform as CropTransform
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform, TransformList, VFlipTransform
from PIL import Image
from torch.nn import functional as F

from detectron2._missing import missing_attribute

__getattr__ = missing_attribute(__name__)

_NEAREST, _BILINEAR = Image.Resampling.NEAREST.value, Image.Resampling.BILINEAR.value
_TORCH_MODES = {_NEAREST: "nearest", _BILINEAR: "bilinear", Image.Resampling.BICUBIC.value: "bicubic"}


class ResizeTransform(Transform):
    """Resize (h, w) to (new_h, new_w) pixels; `interp` is one of Pillow's filters.

    Images of uint8 are resized by Pillow, others by torch.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None):
        self.h, self.w, self.new_h, self.new_w = h, w, new_h, new_w
        self.interp = _BILINEAR if interp is None else interp

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize an image (h, w[, C]) to (new_h, new_w[, C])."""
        assert img.shape[:2] == (self.h, self.w), f"expected an image of ({self.h}, {self.w}), got {img.shape}"
        interp, new_shape = self.interp if interp is None else interp, (self.new_h, self.new_w, *img.shape[2:])
        if img.dtype == np.uint8:
            image = Image.fromarray(img[:, :, 0] if img.shape[2:] == (1,) else img)
            return np.asarray(image.resize((self.new_w, self.new_h), interp)).reshape(new_shape)
        channels = torch.from_numpy(np.ascontiguousarray(img)).reshape(1, self.h, self.w, -1).movedim(-1, 1)
        resized = F.interpolate(channels, new_shape[:2], mode=_TORCH_MODES[interp])
        return resized.movedim(1, -1).reshape(new_shape).numpy()

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale points (N, 2), xy in pixels, in place; integers are truncated."""
        coords[:, 0] = coords[:, 0] * (self.new_w / self.w)
        coords[:, 1] = coords[:, 1] * (self.new_h / self.h)
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, interp=_NEAREST)


class AugInput:
    """What augmentations transform in place.

    image (H, W[, C]), uint8 or floating point; boxes (N, 4), xyxy in pixels; sem_seg (H, W), labels.
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
    """Base class of augmentations, which define `get_transform`.

    It takes the image or, with several arguments, the attributes of `AugInput` of these names. Random choices use
    numpy's global generator.
    """

    def get_transform(self, *args: Any) -> Transform:
        raise NotImplementedError(f"{type(self).__name__} must define get_transform()")

    def __call__(self, aug_input: AugInput) -> Transform:
        """Transform `aug_input` in place; return the transform."""
        names = list(inspect.signature(self.get_transform).parameters)
        tfm = self.get_transform(*(getattr(aug_input, name) for name in (["image"] if len(names) == 1 else names)))
        aug_input.transform(tfm)
        return tfm

    def _init(self, params: dict[str, Any]) -> None:
        """Set attributes from the `locals()` of a constructor."""
        vars(self).update({k: v for k, v in params.items() if k != "self" and not k.startswith("_")})

    def __repr__(self) -> str:
        """Return `Name(argument=value, ...)` without default values."""
        parameters = inspect.signature(type(self)).parameters
        given = {name: getattr(self, name) for name in parameters if hasattr(self, name)}
        shown = [f"{name}={value!r}" for name, value in given.items() if value is not parameters[name].default]
        return f"{type(self).__name__}({', '.join(shown)})"


class AugmentationList(Augmentation):
    """Apply augmentations or transforms one after another."""

    def __init__(self, augs: Iterable[Augmentation | Transform]):
        self.augs = list(augs)

    def __call__(self, aug_input: AugInput) -> TransformList:
        tfms = []
        for aug in self.augs:
            if isinstance(aug, Transform):
                aug_input.transform(aug)
            tfms.append(aug if isinstance(aug, Transform) else aug(aug_input))
        return TransformList(tfms)

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(map(str, self.augs))}]"


class RandomFlip(Augmentation):
    """Flip an image horizontally or vertically with probability `prob`."""

    def __init__(self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False):
        if horizontal == vertical:
            raise ValueError("RandomFlip is either horizontal or vertical; use two of them for both")
        self.prob, self.horizontal, self.vertical = prob, horizontal, vertical

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        if np.random.uniform() >= self.prob:
            return NoOpTransform()
        return HFlipTransform(width) if self.horizontal else VFlipTransform(height)


class ResizeShortestEdge(Augmentation):
    """Scale the shorter edge to a sampled length, the longer to `max_size` at most.

    `short_edge_length` is [min, max], both inclusive, for `sample_style` "range"; the candidates for "choice".
    """

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = _BILINEAR,
    ):
        assert sample_style in ("range", "choice"), f"sample_style: expected 'range' or 'choice', got '{sample_style}'"
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        if sample_style == "range":
            assert len(short_edge_length) == 2, f"short_edge_length: expected [min, max], got {short_edge_length}"
        self.short_edge_length, self.max_size = short_edge_length, max_size
        self.sample_style, self.interp = sample_style, interp

    def get_transform(self, image: np.ndarray) -> Transform:
        lengths = self.short_edge_length
        is_range = self.sample_style == "range"
        length = np.random.randint(lengths[0], lengths[1] + 1) if is_range else np.random.choice(lengths)
        if length == 0:  # keep the size
            return NoOpTransform()
        h, w = image.shape[:2]
        return ResizeTransform(h, w, *self.get_output_shape(h, w, length, self.max_size), self.interp)

    @staticmethod
    def get_output_shape(oldh: int, oldw: int, short_edge_length: int, max_size: int) -> tuple[int, int]:
        """Return the new (height, width); halves are rounded up."""
        short, long = float(short_edge_length), short_edge_length / min(oldh, oldw) * max(oldh, oldw)
        if long > max_size:
            short, long = short * (max_size / long), long * (max_size / long)
        height, width = (short, long) if oldh < oldw else (long, short)
        return int(height + 0.5), int(width + 0.5)
