"""Whether objects are annotated with masks, as the training of a mask head needs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from d2_detr.data.datasets.panoptic import objects_of
from d2_detr.utils.errors import InputError


def mask_problem(annotation: Mapping[str, Any], mask_format: str) -> str:
    """Why a mask cannot be had from an annotation in INPUT.MASK_FORMAT "polygon" or "bitmask"; "" if it can."""
    if annotation.get("iscrowd", 0):
        return ""  # is left out of the training
    segmentation = annotation.get("segmentation")
    if not segmentation:
        return (
            "an object without a mask (`segmentation`), which MODEL.MASK_ON asks for; annotate it, or train boxes "
            "alone with MODEL.MASK_ON False"
        )
    if mask_format == "polygon" and not isinstance(segmentation, list):
        return "a mask that is no polygon but an RLE; set INPUT.MASK_FORMAT bitmask, which takes both"
    return ""


def check_masks(datasets: Mapping[str, list[dict]], mask_format: str) -> None:
    """See that every object of these datasets (Detectron2's dicts by name) has a mask.

    Raises:
        InputError: for the first that has none; it counts the others.
    """
    problems = [
        f"{record['file_name']}: {problem}"
        for records in datasets.values()
        for record in records
        if "segments_info" not in record  # whose masks are its segments
        for annotation in objects_of(record)
        if (problem := mask_problem(annotation, mask_format))
    ]
    if problems:
        more = f" (and {len(problems) - 1} more objects)" if len(problems) > 1 else ""
        raise InputError(problems[0] + more)
