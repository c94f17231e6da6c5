"""What is in a picture, and what was found in it, from Detectron2's forms to what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from torch import Tensor

from d2_detr.data.datasets.panoptic import read_segments
from d2_detr.structures.detections import Detections
from d2_detr.structures.label_map import LabelMap
from d2_detr.structures.masks import bit_masks, to_rle

from detectron2.structures import BitMasks, BoxMode, Instances

NO_BOX = [np.nan] * 4


def ground_truth_detections(dataset_dict: dict[str, Any], *, masks: bool) -> Detections:
    """The truth of a dataset dict, crowds included; of a panoptic one its segments, of which stuff has no box."""
    annotations = read_segments(dataset_dict)
    things = [segment["isthing"] for segment in dataset_dict.get("segments_info", [])] or [True] * len(annotations)
    boxes = [
        BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) if is_thing else NO_BOX
        for a, is_thing in zip(annotations, things, strict=True)
    ]
    size_hw = dataset_dict["height"], dataset_dict["width"]
    return Detections(
        np.array(boxes, dtype=float).reshape(-1, 4),
        np.array([a["category_id"] for a in annotations], dtype=int),
        masks=np.array([_mask(a, size_hw) for a in annotations]).reshape(-1, *size_hw) if masks else None,
        is_crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool),
    )


def detections_from_targets(instances: Instances) -> Detections:
    """The targets of a training picture, as the mapper gives them."""
    masks = bit_masks(instances).numpy() if instances.has("gt_masks") else None
    return Detections(instances.gt_boxes.tensor.numpy(), instances.gt_classes.numpy(), masks=masks)


def detections_from_output(output: dict[str, Any]) -> Detections:
    """The segments of what Detr gives for a picture, or its instances where there are none."""
    return (
        detections_from_segments(*output["panoptic_seg"])
        if "panoptic_seg" in output
        else detections_from_instances(output["instances"])
    )


def detections_from_instances(instances: Instances) -> Detections:
    instances = instances.to("cpu")
    return Detections(
        instances.pred_boxes.tensor.numpy(),
        instances.pred_classes.numpy(),
        instances.scores.numpy(),
        instances.pred_masks.numpy() if instances.has("pred_masks") else None,
    )


def detections_from_results(results: Sequence[dict], label_map: LabelMap, *, masks: bool) -> Detections:
    """Those of a picture in COCO's results format, as COCOEvaluator writes them."""
    classes = {category_id: i for i, category_id in enumerate(label_map.ids)}
    boxes = np.array([result["bbox"] for result in results], dtype=float).reshape(-1, 4)
    return Detections(
        np.hstack((boxes[:, :2], boxes[:, :2] + boxes[:, 2:])),
        np.array([classes[result["category_id"]] for result in results], dtype=int),
        np.array([result["score"] for result in results], dtype=float),
        np.array([mask_util.decode(result["segmentation"]) for result in results], dtype=bool) if masks else None,
    )


def detections_from_segments(ids: Tensor, segments: list[dict[str, Any]]) -> Detections:
    """Things and stuff of a panoptic segmentation (see panoptic_segmentation); stuff has no box."""
    masks = BitMasks(np.array([ids.cpu().numpy() == segment["id"] for segment in segments]).reshape(-1, *ids.shape))
    boxes = masks.get_bounding_boxes().tensor.numpy()
    boxes[[not segment["isthing"] for segment in segments]] = NO_BOX
    return Detections(
        boxes,
        np.array([segment["category_id"] for segment in segments], dtype=int),
        np.array([segment["score"] for segment in segments]),
        masks.tensor.numpy(),
    )


def _mask(annotation: dict[str, Any], size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W), bool; nothing where none is annotated."""
    segmentation = annotation.get("segmentation")
    return mask_util.decode(to_rle(segmentation, size_hw)).astype(bool) if segmentation else np.zeros(size_hw, bool)
