"""Match the predictions of an image with its objects and name the error of each that does not match.

The error types are those of TIDE (Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection
Errors"), with its IoU thresholds of 0.5 and 0.1. Two differences: a prediction of the wrong class with an IoU between
them, TIDE's "both", counts as background; and an object is missed whenever no prediction matches it, even if a
localization or classification error explains why. AP averages over ten IoU thresholds; here one decides, so that the
outcome can be verified in the image.

Shape shorthand: P predictions and M objects of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torchvision.ops import box_area, box_iou

from d2_detr.structures.detections import Detections

MATCH_IOU = 0.5
BACKGROUND_IOU = 0.1  # below it a prediction has nothing to do with the object


class Outcome(Enum):
    """What became of a prediction or an object; the value is the term that users read.

    MISSED belongs to objects, TRUE_POSITIVE and CROWD to both, the others to predictions.
    """

    TRUE_POSITIVE = "true positive"
    BACKGROUND = "background"
    LOCALIZATION = "localization error"
    DUPLICATE = "duplicate"
    CLASSIFICATION = "classification error"
    MISSED = "missed"
    CROWD = "crowd"


ERRORS = tuple(outcome for outcome in Outcome if outcome not in (Outcome.TRUE_POSITIVE, Outcome.CROWD))


@dataclass(frozen=True)
class ImageOutcomes:
    """The outcome of each object (`gt`) and each prediction (`pred`) of an image, in their order."""

    gt: list[Outcome]
    pred: list[Outcome]

    def count(self, outcome: Outcome) -> int:
        """Count an outcome among the predictions, MISSED among the objects."""
        return (self.gt if outcome is Outcome.MISSED else self.pred).count(outcome)

    @property
    def num_errors(self) -> int:
        """Number of errors of all types."""
        return sum(map(self.count, ERRORS))


def match_detections(ground_truth: Detections, predictions: Detections) -> ImageOutcomes:
    """Match predictions with objects, highest score first.

    Each prediction takes the object of its class with the largest IoU among those that are still free. As in COCO's
    AP, a prediction inside a crowd of its class is neither right nor wrong.
    """
    iou, coverage = box_overlaps(predictions.boxes_xyxy, ground_truth.boxes_xyxy)
    is_crowd = np.zeros(len(ground_truth.classes), bool) if ground_truth.is_crowd is None else ground_truth.is_crowd
    iou[:, is_crowd] = 0
    same_class = predictions.classes[:, None] == ground_truth.classes[None]
    in_crowd = (coverage[:, is_crowd] * same_class[:, is_crowd]).max(1, initial=0) >= MATCH_IOU
    is_free = ~is_crowd
    pred = [Outcome.BACKGROUND] * len(predictions.classes)
    for i in score_order(predictions):
        candidates = np.where(same_class[i] & is_free, iou[i], 0)
        if candidates.max(initial=0) >= MATCH_IOU:
            is_free[candidates.argmax()] = False
            pred[i] = Outcome.TRUE_POSITIVE
        else:
            pred[i] = Outcome.CROWD if in_crowd[i] else _error_type(iou[i], same_class[i])
    gt = [Outcome.MISSED if free else Outcome.TRUE_POSITIVE for free in is_free]
    return ImageOutcomes([Outcome.CROWD if c else outcome for outcome, c in zip(gt, is_crowd, strict=True)], pred)


def score_order(predictions: Detections) -> np.ndarray:
    """Return the indices of the predictions, highest score first."""
    assert predictions.scores is not None
    return np.argsort(-predictions.scores, kind="stable")


def box_overlaps(boxes_xyxy: np.ndarray, others_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the IoU (P, M) and the fraction of each box that lies inside each of the others (P, M)."""
    boxes, others = (torch.as_tensor(b, dtype=torch.float64).reshape(-1, 4) for b in (boxes_xyxy, others_xyxy))
    iou = box_iou(boxes, others)
    # IoU = I / (A + B - I), solved for the intersection I.
    intersection = (box_area(boxes)[:, None] + box_area(others)) * iou / (1 + iou)
    return iou.numpy(), (intersection / box_area(boxes)[:, None].clamp(min=1e-9)).numpy()


def _error_type(iou: np.ndarray, same_class: np.ndarray) -> Outcome:
    """Explain a prediction without a match by its IoU (M,) with the objects."""
    if (iou[same_class] >= MATCH_IOU).any():
        return Outcome.DUPLICATE
    if (iou[~same_class] >= MATCH_IOU).any():
        return Outcome.CLASSIFICATION
    if (iou[same_class] >= BACKGROUND_IOU).any():
        return Outcome.LOCALIZATION
    return Outcome.BACKGROUND
