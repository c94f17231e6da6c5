"""The image and the annotations of a dataset dict, whether of instances or panoptic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from d2_detr.data.formats.coco_panoptic import read_ids
from d2_detr.data.images import image_size, read_image
from d2_detr.structures.conversions import NO_BOX
from d2_detr.structures.detections import Detections
from d2_detr.structures.masks import mask_to_rle, to_rle
from d2_detr.structures.records import Record
from d2_detr.utils.errors import InputError

from detectron2.structures import BoxMode

Annotation = dict[str, Any]  # one of the `annotations` of a dataset dict


def read_record_image(record: Record) -> np.ndarray:
    """Read the image (H, W, 3), RGB, uint8, of a dataset dict."""
    return read_image(record["file_name"], annotated_wh=annotated_wh(record))


def record_annotations(record: Mapping[str, Any]) -> list[Annotation]:
    """Return the annotations of a dataset dict, crowds included.

    A panoptic dict yields its segments, without masks, and with `isthing`.
    """
    if "annotations" in record:
        return record["annotations"]
    return [
        {
            "bbox": segment["bbox"],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": segment["category_id"],
            "isthing": segment.get("isthing", True),
            "iscrowd": segment.get("iscrowd", 0),
        }
        for segment in record.get("segments_info", [])
    ]


def read_annotations(record: Mapping[str, Any]) -> list[Annotation]:
    """Return the annotations of a dataset dict, including the masks of segments.

    These are compressed RLEs, read from the PNG of a panoptic dict.

    Raises:
        FileNotFoundError: the PNG does not exist.
        InputError: the PNG is damaged, has another size than the dict, or lacks a segment.
    """
    annotations = record_annotations(record)
    if "annotations" in record or "segments_info" not in record:
        return annotations
    path = record["pan_seg_file_name"]
    ids = read_ids(path, annotated_wh=annotated_wh(record))
    for annotation, segment in zip(annotations, record["segments_info"], strict=True):
        mask = ids == segment["id"]
        if not mask.any():
            raise InputError(
                f"{path}: no pixel belongs to the segment with id {segment['id']}, which the JSON file lists; make or "
                "download both again"
            )
        annotation["segmentation"] = mask_to_rle(mask)
    return annotations


def image_files(record: Mapping[str, Any]) -> list[str]:
    """Return the image of a dataset dict and, if it is panoptic, the PNG of its segments."""
    return [record[key] for key in ("file_name", "pan_seg_file_name") if key in record]


def annotated_wh(record: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the width and height in pixels that a dataset dict gives, or None."""
    return (record["width"], record["height"]) if "width" in record else None


def mask_problem(annotation: Mapping[str, Any]) -> str:
    """Return an error message if an object has no mask, else ""."""
    if annotation.get("segmentation") or annotation.get("iscrowd", 0):
        return ""
    return (
        "an object has no mask (`segmentation`), which MODEL.MASK_ON requires; annotate it, or train boxes only with "
        "MODEL.MASK_ON False"
    )


def ground_truth_detections(record: Mapping[str, Any], *, masks: bool) -> Detections:
    """Return the ground truth of a dataset dict, crowds included.

    A panoptic dict yields its segments. Those of stuff have no box; without masks they are left out.

    Args:
        masks: include masks; those of objects without `segmentation` are empty.
    """
    annotations = read_annotations(record) if masks else list(filter(_is_thing, record_annotations(record)))
    boxes = [
        BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) if _is_thing(a) else NO_BOX for a in annotations
    ]
    return Detections(
        np.array(boxes, dtype=float).reshape(-1, 4),
        np.array([a["category_id"] for a in annotations], dtype=int),
        masks=_masks(record, annotations) if masks else None,
        is_crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool),
    )


def _is_thing(annotation: Annotation) -> bool:
    return annotation.get("isthing", True)


def _masks(record: Mapping[str, Any], annotations: Sequence[Annotation]) -> np.ndarray:
    """Return the masks (N, H, W), bool."""
    width, height = annotated_wh(record) or image_size(record["file_name"])
    masks = np.zeros((len(annotations), height, width), bool)
    for mask, annotation in zip(masks, annotations, strict=True):
        if segmentation := annotation.get("segmentation"):
            mask[:] = mask_util.decode(to_rle(segmentation, (height, width)))
    return masks
