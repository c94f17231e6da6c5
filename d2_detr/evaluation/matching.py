"""What became of every prediction and every object: found, false, badly placed, twice, of the wrong class, missed.

One IoU decides, 0.5, so that a person can see it in the pictures; AP is COCOEvaluator's business.

Shape shorthand: P predictions and M objects of a picture, N predictions of all pictures together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torchvision.ops import box_area, box_iou

from d2_detr.structures.detections import Detections

FOUND_IOU = 0.5
LEAST_F1 = 0.1  # of a model that one may want to use
NEAR_IOU = 0.1  # a box that overlaps an object of its class so much was meant for it


class Outcome(Enum):
    """Of a prediction, but MISSED, which is of an object, and IN_CROWD of both; the value is the word for people."""

    FOUND = "found"
    FALSE = "false"
    BADLY_PLACED = "badly placed"
    DUPLICATE = "duplicate"
    WRONG_CLASS = "wrong class"
    MISSED = "missed"
    IN_CROWD = "in a crowd"


MISTAKES = tuple(outcome for outcome in Outcome if outcome not in (Outcome.FOUND, Outcome.IN_CROWD))


@dataclass(frozen=True)
class Outcomes:
    """Of a picture: one for each prediction and each object, found or missed, in the order given."""

    of_predictions: list[Outcome]
    of_objects: list[Outcome]

    def count(self, outcome: Outcome) -> int:
        return self.of_predictions.count(outcome) + (self.of_objects.count(outcome) if outcome is Outcome.MISSED else 0)

    @property
    def mistakes(self) -> int:
        return sum(map(self.count, MISTAKES))


def outcomes(truth: Detections, predicted: Detections) -> Outcomes:
    """Match the predictions of a picture, the surest first, each with the object of its class that it overlaps most
    among those that are not taken. What lies in a crowd of its class counts for nothing, as in COCO's AP."""
    iou, inside = overlaps(predicted.boxes_xyxy, truth.boxes_xyxy)
    crowds = np.zeros(len(truth.classes), bool) if truth.is_crowd is None else truth.is_crowd
    iou[:, crowds] = 0
    same_class = predicted.classes[:, None] == truth.classes[None]
    in_crowd = (inside[:, crowds] * same_class[:, crowds]).max(1, initial=0) >= FOUND_IOU
    free = ~crowds
    of_predictions = [Outcome.FALSE] * len(predicted.classes)
    for i in np.argsort(-predicted.scores, kind="stable"):
        candidates = np.where(same_class[i] & free, iou[i], 0)
        if candidates.max(initial=0) >= FOUND_IOU:
            free[candidates.argmax()] = False
            of_predictions[i] = Outcome.FOUND
        else:
            of_predictions[i] = Outcome.IN_CROWD if in_crowd[i] else _mistake(iou[i], same_class[i])
    of_objects = [Outcome.MISSED if is_free else Outcome.FOUND for is_free in free]
    return Outcomes(of_predictions, [Outcome.IN_CROWD if c else o for o, c in zip(of_objects, crowds, strict=True)])


def overlaps(boxes_xyxy: np.ndarray, others_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU (P, M), and the share of each box that lies inside each of the others (P, M)."""
    boxes, others = (torch.as_tensor(b, dtype=torch.float64).reshape(-1, 4) for b in (boxes_xyxy, others_xyxy))
    iou = box_iou(boxes, others)
    # From IoU = I / (A + B - I) follows I.
    intersection = (box_area(boxes)[:, None] + box_area(others)) * iou / (1 + iou)
    return iou.numpy(), (intersection / box_area(boxes)[:, None].clamp(min=1e-9)).numpy()


def _mistake(iou: np.ndarray, same_class: np.ndarray) -> Outcome:
    """Why a prediction with these overlaps (M,) is not found: the likeliest reason first."""
    if (iou[same_class] >= FOUND_IOU).any():
        return Outcome.DUPLICATE
    if (iou[~same_class] >= FOUND_IOU).any():
        return Outcome.WRONG_CLASS
    if (iou[same_class] >= NEAR_IOU).any():
        return Outcome.BADLY_PLACED
    return Outcome.FALSE


@dataclass(frozen=True)
class Curve:
    """Precision and recall of the predictions with at least each score, (N,) each, scores falling.

    `num_objects` is what recall is measured against.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    num_objects: int

    @property
    def f1(self) -> np.ndarray:
        total = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0)

    @property
    def best_f1(self) -> float:
        """0 where nothing is found."""
        return float(self.f1.max(initial=0))

    def at(self, threshold: float) -> tuple[float, float]:
        """Precision and recall of what has at least this score; NaN and 0 where nothing has."""
        number = int((self.scores >= threshold).sum())
        return (float(self.precision[number - 1]), float(self.recall[number - 1])) if number else (math.nan, 0.0)

    @property
    def best_threshold(self) -> float:
        """The score with the best F1; 1 where nothing is found."""
        return float(self.scores[self.f1.argmax()]) if self.f1.any() else 1.0


def curve(scores: Sequence[float], found: Sequence[bool], num_objects: int) -> Curve:
    """Of the predictions of all pictures together, with whether each was found.

    Predictions with the same score stand or fall together.
    """
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    scores, hits = np.asarray(scores, float)[order], np.cumsum(np.asarray(found, bool)[order])
    last = np.append(np.diff(scores) != 0, True)[: len(scores)]  # of each score
    counts = np.arange(1, len(scores) + 1)[last]
    return Curve(scores[last], hits[last] / counts, hits[last] / max(num_objects, 1), num_objects)
