"""Masks of an image in the forms of Detectron2 and COCO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from torch import Tensor

from d2_detr.utils.errors import InputError

from detectron2.structures import BitMasks, Instances, PolygonMasks


def to_rle(segmentation: list[list[float]] | dict[str, Any], size_hw: Sequence[int]) -> dict[str, Any]:
    """Convert a COCO segmentation to a compressed RLE.

    Args:
        segmentation: polygons [x0, y0, x1, y1, ...] in pixels, which are merged, or an RLE, compressed or not.
        size_hw: height and width of the image.
    """
    if isinstance(segmentation, list):
        return mask_util.merge(mask_util.frPyObjects(segmentation, *size_hw))
    if isinstance(segmentation["counts"], list):
        return mask_util.frPyObjects(segmentation, *size_hw)
    return segmentation


def mask_to_rle(mask: np.ndarray) -> dict[str, Any]:
    """Convert a mask (H, W), bool, to a compressed RLE."""
    return mask_util.encode(np.asfortranarray(mask, np.uint8))


def bit_masks(instances: Instances) -> Tensor:
    """Return `gt_masks`, polygons or bitmaps, as (M, H, W), bool.

    Raises:
        InputError: there are objects, but no `gt_masks`.
    """
    if not instances.has("gt_masks"):
        if len(instances):
            raise InputError("MODEL.MASK_ON is True, but the instances have no gt_masks; annotate them or set it False")
        return torch.zeros((0, *instances.image_size), dtype=torch.bool)
    masks = instances.gt_masks
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks, *instances.image_size)
    return masks.tensor
