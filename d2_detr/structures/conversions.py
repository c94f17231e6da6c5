"""Conversions to Detections from the forms of Detectron2 and COCO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from torch import Tensor

from d2_detr.structures.detections import Detections
from d2_detr.structures.label_map import LabelMap
from d2_detr.structures.masks import bit_masks

from detectron2.structures import BitMasks, Instances

NO_BOX = [np.nan] * 4


def detections_from_targets(instances: Instances) -> Detections:
    """Convert the targets of a training image, as the dataset mapper returns them."""
    masks = bit_masks(instances).numpy() if instances.has("gt_masks") else None
    return Detections(instances.gt_boxes.tensor.numpy(), instances.gt_classes.numpy(), masks=masks)


def detections_from_output(output: dict[str, Any]) -> Detections:
    """Convert Detr's output for an image: its segments if any, else its instances."""
    return (
        detections_from_segments(*output["panoptic_seg"])
        if "panoptic_seg" in output
        else detections_from_instances(output["instances"])
    )


def detections_from_instances(instances: Instances) -> Detections:
    """Convert predicted instances of an image."""
    instances = instances.to("cpu")
    return Detections(
        instances.pred_boxes.tensor.numpy(),
        instances.pred_classes.numpy(),
        instances.scores.numpy(),
        instances.pred_masks.numpy() if instances.has("pred_masks") else None,
    )


def detections_from_results(results: Sequence[dict], label_map: LabelMap, *, masks: bool) -> Detections:
    """Convert results of an image in COCO's format, as COCOEvaluator writes them; masks of none are None."""
    classes = label_map.contiguous_ids
    boxes = np.array([result["bbox"] for result in results], dtype=float).reshape(-1, 4)
    return Detections(
        np.hstack((boxes[:, :2], boxes[:, :2] + boxes[:, 2:])),
        np.array([classes[result["category_id"]] for result in results], dtype=int),
        np.array([result["score"] for result in results], dtype=float),
        np.array([mask_util.decode(r["segmentation"]) for r in results], dtype=bool) if masks and results else None,
    )


def detections_from_segments(ids: Tensor, segments: list[dict[str, Any]]) -> Detections:
    """Convert a panoptic segmentation (see panoptic_segmentation)."""
    masks = BitMasks(ids.cpu() == torch.tensor([segment["id"] for segment in segments])[:, None, None])
    boxes = masks.get_bounding_boxes().tensor.numpy()
    boxes[[not segment["isthing"] for segment in segments]] = NO_BOX
    return Detections(
        boxes,
        np.array([segment["category_id"] for segment in segments], dtype=int),
        np.array([segment["score"] for segment in segments]),
        masks.tensor.numpy(),
    )
