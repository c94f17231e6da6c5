"""The objects predicted in an image: for Python, as a drawing, and in COCO's format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image, ImageOps

from d2_detr.data.images import read_image, rgb_pixels
from d2_detr.structures.detections import Detections
from d2_detr.structures.label_map import LabelMap
from d2_detr.structures.masks import mask_to_rle
from d2_detr.utils.errors import InputError

# A path, a Pillow image, or an array as `image_pixels` takes it.
ImageInput = str | Path | Image.Image | np.ndarray


@dataclass(frozen=True, eq=False)
class DetectedObject:
    """One object in an image of H x W pixels.

    Attributes:
        name: of the class.
        class_id: of the class in the model, from 0.
        score: in [0, 1].
        box_xyxy: (4,), float32, in pixels of the image.
        mask: (H, W), bool; None if the model has no masks.
    """

    name: str
    class_id: int
    score: float
    box_xyxy: np.ndarray
    mask: np.ndarray | None


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The N objects in an image of H x W pixels, highest score first; iterable as DetectedObject.

    Attributes:
        image: as it was given to the predictor.
        label_map: the classes of the model.
        boxes_xyxy: (N, 4), float32, in pixels of the image.
        classes: (N,), int64, from 0.
        scores: (N,), float32, in [0, 1].
        masks: (N, H, W), bool; None if the model has no masks.
        segments: things and stuff of a panoptic model, which do not overlap; None of other models.
    """

    image: ImageInput
    label_map: LabelMap
    boxes_xyxy: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray | None
    segments: Detections | None

    @property
    def names(self) -> list[str]:
        """Class name of each object."""
        return [self.label_map.names[label] for label in self.classes]

    @property
    def detections(self) -> Detections:
        """What is drawn and written: the segments of a panoptic model, the objects of others."""
        if self.segments is not None:
            return self.segments
        return Detections(self.boxes_xyxy, self.classes, self.scores, self.masks)

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.classes)

    def __iter__(self) -> Iterator[DetectedObject]:
        """Iterate over the objects, highest score first."""
        for i, name in enumerate(self.names):
            mask = None if self.masks is None else self.masks[i]
            yield DetectedObject(name, int(self.classes[i]), float(self.scores[i]), self.boxes_xyxy[i], mask)

    def __repr__(self) -> str:
        objects = ", ".join(f"{name} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True))
        return f"Prediction({objects or 'nothing'})"

    def draw(self, path: str | Path) -> None:
        """Write the image with the objects in it, as .png or .jpg. An image that was given as a path is read again.

        Raises:
            InputError: another suffix.
        """
        from d2_detr.visualization.predictions import save_drawing  # predicting does not need it

        save_drawing(image_pixels(self.image), self.detections, self.label_map.names, Path(path))

    def coco_results(self, image_id: int) -> list[dict[str, Any]]:
        """Return an entry in COCO's results format for each object (of a panoptic model: segment).

        Boxes are [x, y, width, height] in pixels, rounded to two digits; the box of stuff encloses its mask. Scores are
        rounded to four digits. Masks are compressed RLEs. `category_name` is added.
        """
        return [self._coco_result(i) | {"image_id": image_id} for i in range(len(self.detections.classes))]

    def _coco_result(self, i: int) -> dict[str, Any]:
        boxes_xyxy, classes, scores, masks, _ = self.detections
        assert scores is not None
        x0, y0, x1, y1 = boxes_xyxy[i].tolist()
        entry: dict[str, Any] = {
            "category_id": self.label_map.ids[classes[i]],
            "category_name": self.label_map.names[classes[i]],
            "bbox": [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
            "score": round(float(scores[i]), 4),
        }
        if masks is not None:
            rle = mask_to_rle(masks[i])
            entry["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
            if np.isnan(x0):
                entry["bbox"] = mask_util.toBbox(rle).tolist()
        return entry


def image_pixels(image: ImageInput) -> np.ndarray:
    """Return an image as an array (H, W, 3), RGB, uint8.

    Args:
        image: a path or a Pillow image of any mode, whose EXIF orientation is applied; or an array, uint8: RGB
            (H, W, 3), RGBA (H, W, 4), of which alpha is dropped, or gray (H, W) or (H, W, 1).

    Raises:
        FileNotFoundError, InputError: no such file, or no such image.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return rgb_pixels(ImageOps.exif_transpose(image), "Pillow image")
    if not isinstance(image, np.ndarray):
        raise InputError(f"image of type {type(image).__name__}: expected a path, a Pillow image or an array")
    channels = image.shape[2] if image.ndim == 3 else 1 if image.ndim == 2 else 0
    if image.dtype != np.uint8 or channels not in (1, 3, 4) or not image.size:
        raise InputError(
            f"array {image.shape} of {image.dtype}: expected uint8, RGB (H, W, 3), RGBA (H, W, 4) or gray (H, W)"
        )
    return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2) if channels == 1 else image[:, :, :3]
