"""Masks of an image in the forms of COCO and of Detectron2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pycocotools.mask as mask_util
import torch
from torch import Tensor

from d2_detr.utils.errors import InputError

from detectron2.structures import BitMasks, Instances, PolygonMasks


def to_rle(segmentation: list[list[float]] | dict[str, Any], size_hw: Sequence[int]) -> dict[str, Any]:
    """Convert a COCO segmentation to a compressed RLE.

    Args:
        segmentation: polygons [x0, y0, x1, y1, ...] in pixels, of which the union is taken, or an RLE of either kind.
        size_hw: height and width of the image.
    """
    if isinstance(segmentation, list):
        return mask_util.merge(mask_util.frPyObjects(segmentation, *size_hw))
    if isinstance(segmentation["counts"], list):
        return mask_util.frPyObjects(segmentation, *size_hw)
    return segmentation


def bit_masks(instances: Instances) -> Tensor:
    """Return `gt_masks`, polygons or bitmaps, as (M, H, W), bool; an image without objects needs none.

    Raises:
        InputError: objects without masks.
    """
    if not instances.has("gt_masks"):
        if len(instances):
            raise InputError("MODEL.MASK_ON is True, but the instances have no gt_masks; annotate them or set it False")
        return torch.zeros((0, *instances.image_size), dtype=torch.bool)
    masks = instances.gt_masks
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks, *instances.image_size)
    return masks.tensor
