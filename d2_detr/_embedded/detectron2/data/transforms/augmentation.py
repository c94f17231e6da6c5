"""Augmentations: policies, mostly random ones, that look at an input and choose the deterministic transform for it."""

import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "TransformGen",
    "apply_augmentations",
    "apply_transform_gens",
]


class AugInput:
    """What augmentations look at and transform in place.

    image: (H, W[, C]), uint8 or floating point; boxes: (N, 4) xyxy in pixels; sem_seg: (H, W) labels.
    """

    def __init__(self, image: np.ndarray, *, boxes: np.ndarray | None = None, sem_seg: np.ndarray | None = None):
        assert isinstance(image, np.ndarray) and image.ndim in (2, 3), f"Not an (H, W[, C]) array: {image!r:.80}"
        self.image, self.boxes, self.sem_seg = image, boxes, sem_seg

    def transform(self, tfm: Transform) -> None:
        self.image = tfm.apply_image(self.image)
        self.boxes = None if self.boxes is None else tfm.apply_box(self.boxes)
        self.sem_seg = None if self.sem_seg is None else tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(self, augmentations: "Iterable[Augmentation | Transform]") -> TransformList:
        return AugmentationList(augmentations)(self)


class Augmentation:
    """Base of the policies. A subclass writes `get_transform`, whose arguments are what it looks at.

    `input_args` are the attributes of `AugInput` to pass; by default "image" for a single argument, else their names.
    """

    input_args: tuple[str, ...] | None = None

    def get_transform(self, *args: Any) -> Transform:
        raise NotImplementedError(f"{type(self).__name__} has no get_transform")

    def __call__(self, aug_input: AugInput) -> Transform:
        """Transform `aug_input` in place; return the transform for all that belongs to it."""
        if self.input_args is None:
            names = tuple(inspect.signature(self.get_transform).parameters)
            self.input_args = names if len(names) > 1 else ("image",)
        tfm = self.get_transform(*(getattr(aug_input, name) for name in self.input_args))
        aug_input.transform(tfm)
        return tfm

    def _init(self, params: dict[str, Any]) -> None:
        """Keep the constructor's arguments, given as `locals()`, under their names."""
        vars(self).update({k: v for k, v in params.items() if k != "self" and not k.startswith("_")})

    def _rand_range(self, low: float = 1.0, high: float | None = None, size: Any = ()) -> np.ndarray:
        """Uniform in [low, high); with one bound only, in [0, low)."""
        return np.random.uniform(*((0, low) if high is None else (low, high)), size)

    def __repr__(self) -> str:
        """`Name(argument=value, ...)`, without the defaults."""
        parameters = inspect.signature(self.__init__).parameters
        given = {name: getattr(self, name) for name in parameters if hasattr(self, name)}
        shown = [f"{name}={value!r}" for name, value in given.items() if value is not parameters[name].default]
        return f"{type(self).__name__}({', '.join(shown)})"


class _TransformToAug(Augmentation):
    """The policy that always chooses the same transform."""

    def __init__(self, tfm: Transform):
        self.tfm = tfm

    def get_transform(self, image: np.ndarray) -> Transform:
        return self.tfm

    def __repr__(self) -> str:
        return repr(self.tfm)


class AugmentationList(Augmentation):
    """Augmentations in sequence, each looking at what those before it made of the input."""

    def __init__(self, augs: Iterable[Augmentation | Transform]):
        self.augs = [aug if isinstance(aug, Augmentation) else _TransformToAug(aug) for aug in augs]

    def __call__(self, aug_input: AugInput) -> TransformList:
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(map(str, self.augs))}]"


def apply_augmentations(
    augmentations: Iterable[Augmentation | Transform], inputs: np.ndarray | AugInput
) -> tuple[np.ndarray | AugInput, TransformList]:
    """Augment an image or an `AugInput`; returns what was given, augmented, and the transforms."""
    if not isinstance(inputs, np.ndarray):
        return inputs, inputs.apply_augmentations(augmentations)
    aug_input = AugInput(inputs)
    tfms = aug_input.apply_augmentations(augmentations)
    return aug_input.image, tfms


# older names, which published code still uses
TransformGen = Augmentation
apply_transform_gens = apply_augmentations
