"""What was found in a picture: for Python, as a drawing, and in COCO's format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image, ImageOps

from d2_detr.data.images import read_image, rgb_pixels
from d2_detr.structures.detections import Detections
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError
from d2_detr.visualization.predictions import save_objects

# A path, a picture of Pillow's, or an array (H, W, 3), uint8, RGB.
Picture = str | Path | Image.Image | np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """N objects in a picture (H, W), the surest first.

    Of a panoptic model `segments` are things and stuff, none of which lies over another; else it is None.
    """

    picture: Picture  # as it was given
    label_map: LabelMap  # of the model
    boxes_xyxy: np.ndarray  # (N, 4), float32, in pixels of the picture
    classes: np.ndarray  # (N,), int64, from 0
    scores: np.ndarray  # (N,), float32, in [0, 1]
    masks: np.ndarray | None  # (N, H, W), bool; None of a model without masks
    segments: Detections | None

    @property
    def names(self) -> list[str]:
        """Class name of each object."""
        return [self.label_map.names[label] for label in self.classes]

    @property
    def shown(self) -> Detections:
        """What is drawn and written: the segments, where there are any."""
        if self.segments is not None:
            return self.segments
        return Detections(self.boxes_xyxy, self.classes, self.scores, self.masks)

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True))
        return f"Prediction({found or 'nothing'})"

    def draw(self, path: str | Path) -> None:
        """Write the picture with what was found in it, as .png or .jpg. A path that was given is read again.

        Raises:
            InputError: another suffix.
        """
        save_objects(read_pixels(self.picture), self.shown, self.label_map.names, Path(path))

    def coco_results(self, image_id: int) -> list[dict[str, Any]]:
        """An entry of COCO's results format for each object, with its class's name besides.

        Boxes are [x, y, width, height], to a hundredth of a pixel, that of stuff around its mask; masks are compressed
        RLEs.
        """
        return [self._coco_result(i) | {"image_id": image_id} for i in range(len(self.shown.classes))]

    def _coco_result(self, i: int) -> dict[str, Any]:
        boxes_xyxy, classes, scores, masks, _ = self.shown
        x0, y0, x1, y1 = boxes_xyxy[i].tolist()
        entry: dict[str, Any] = {
            "category_id": self.label_map.ids[classes[i]],
            "category_name": self.label_map.names[classes[i]],
            "bbox": [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
            "score": round(float(scores[i]), 4),
        }
        if masks is not None:
            rle = mask_util.encode(np.asfortranarray(masks[i], np.uint8))
            entry["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
            if np.isnan(x0):
                entry["bbox"] = mask_util.toBbox(rle).tolist()
        return entry


def read_pixels(picture: Picture) -> np.ndarray:
    """A picture, however it is given, as (H, W, 3), uint8, RGB, turned as its EXIF orientation says.

    Raises:
        FileNotFoundError, InputError: no such file, or not such a picture.
    """
    if isinstance(picture, str | Path):
        return read_image(picture)
    if isinstance(picture, Image.Image):
        return rgb_pixels(ImageOps.exif_transpose(picture), "a picture of Pillow's")
    if not isinstance(picture, np.ndarray):
        raise InputError(f"a {type(picture).__name__}, expected a path, a picture of Pillow's or an array")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise InputError(f"an array {picture.shape} of {picture.dtype}, expected (H, W, 3), uint8, RGB")
    return picture
