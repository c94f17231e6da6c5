"""Conversion of files and annotations to arrays and Instances."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from PIL import Image

from tests.reference.detectron2_figures.common import (
    SQUARE,
    TRIANGLE,
    XYWH,
    XYXY,
    compressed,
    picture,
    refusal,
    temporary_folder,
)

from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode


def images_read() -> dict:
    figures = {}
    with temporary_folder() as folder:
        for orientation in range(10):
            exif = Image.Exif()
            exif[274] = orientation
            Image.fromarray(picture(2, 3, 3)).save(folder / "turned.png", exif=exif)
            figures[f"orientation {orientation}"] = utils.read_image(str(folder / "turned.png"), "RGB")
        for shape, mode in (((2, 3), "L"), ((2, 3, 3), "RGB"), ((2, 3, 4), "RGBA")):
            Image.fromarray(picture(*shape)).save(folder / "some.png")
            for form in (None, "RGB", "BGR", "L"):
                figures[f"{mode} as {form}"] = utils.read_image(str(folder / "some.png"), form)
    record, filled = {"file_name": "a.png", "width": 3, "height": 2}, {}
    utils.check_image_size(filled, picture(2, 3))
    return figures | {
        "filled in": filled,
        "size as stated": refusal(utils.check_image_size, record, picture(2, 3)),
        "another size": refusal(utils.check_image_size, record, picture(3, 2)),
    }


def annotation(bbox: Any, mode: BoxMode = XYXY, **fields: Any) -> dict:
    return {"bbox": bbox, "bbox_mode": mode, "category_id": 1, **fields}


def annotations() -> dict[str, dict]:
    return {
        "corners": annotation([2.0, 1.0, 6.0, 3.0]), "whole numbers": annotation([2, 1, 6, 3]),
        "sizes": annotation([2.5, 1, 4, 2], XYWH), "outside": annotation([-3.0, 1, 60, 30]),
        "beyond": annotation([20.0, 20, 30, 30]), "an array": annotation(np.array([2, 1, 6, 3], np.float32)),
        "polygons": annotation([2, 1, 4, 2], XYWH, segmentation=[TRIANGLE, SQUARE]),
        "a mask": annotation([2.0, 1, 6, 3], segmentation=compressed(SQUARE), iscrowd=1),
        "no area": annotation([2.0, 1, 2, 3], segmentation=[SQUARE]),
    }  # fmt: skip


def annotations_transformed() -> dict:
    """Transform annotations of an image of 8 x 10 pixels."""
    unreadable = annotation([2.0, 1.0, 6.0, 3.0], segmentation="?")
    steps = {
        "nothing": (T.NoOpTransform(), (8, 10)), "left-right": (T.HFlipTransform(10), (8, 10)),
        "resize": (T.TransformList([T.ResizeTransform(8, 10, 12, 7), T.HFlipTransform(7)]), (12, 7)),
    }  # fmt: skip
    return {
        f"{name}, {step}": utils.transform_instance_annotations(copy.deepcopy(one), transform, size_hw)
        for name, one in annotations().items()
        for step, (transform, size_hw) in steps.items()
    } | {"text": refusal(utils.transform_instance_annotations, unreadable, T.NoOpTransform(), (8, 10))}


def annotations_as_instances() -> dict:
    given = annotations()
    boxes = [given[name] for name in ("corners", "whole numbers", "sizes", "an array", "beyond")]
    polygons, masks = [given["polygons"], given["no area"]], [given["polygons"], given["a mask"], given["no area"]]
    empty = given["a mask"] | {"segmentation": np.zeros((8, 10), np.uint8)}
    as_masks = utils.annotations_to_instances([*masks, empty], (8, 10), mask_format="bitmask")
    as_polygons = utils.annotations_to_instances(polygons, (8, 10))
    return {
        "boxes": utils.annotations_to_instances(boxes, (8, 10)), "none": utils.annotations_to_instances([], (8, 10)),
        "polygons": as_polygons, "masks": as_masks,
        "a mask as polygons": refusal(utils.annotations_to_instances, masks, (8, 10)),
        "filtered": [utils.filter_empty_instances(instances) for instances in (as_masks, as_polygons)],
        "filtered by box": utils.filter_empty_instances(as_masks, by_mask=False),
    }  # fmt: skip


GROUPS = (images_read, annotations_transformed, annotations_as_instances)
