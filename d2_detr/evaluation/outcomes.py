"""What became of every prediction and every object: found, false, badly placed, twice, of the wrong class, missed.

One IoU decides, 0.5, so that a person can see it in the pictures; AP is COCOEvaluator's business.

Shape shorthand: P predictions and M objects of a picture, N predictions of all pictures together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
import torch
from torchvision.ops import box_iou

FOUND_IOU = 0.5
NEAR_IOU = 0.1  # a box that overlaps an object of its class so much was meant for it


class Outcome(Enum):
    """Of a prediction, but MISSED, which is of an object; the value is the word for people."""

    FOUND = "found"
    FALSE = "false"
    BADLY_PLACED = "badly placed"
    DUPLICATE = "duplicate"
    WRONG_CLASS = "wrong class"
    MISSED = "missed"


class Boxes(NamedTuple):
    """boxes_xyxy (N, 4), classes (N,), and of predictions scores (N,)."""

    boxes_xyxy: np.ndarray
    classes: np.ndarray
    scores: np.ndarray | None = None


@dataclass(frozen=True)
class Outcomes:
    """Of a picture: one for each prediction and each object, found or missed, in the order given."""

    of_predictions: list[Outcome]
    of_objects: list[Outcome]

    def count(self, outcome: Outcome) -> int:
        return self.of_predictions.count(outcome) + (self.of_objects.count(outcome) if outcome is Outcome.MISSED else 0)

    @property
    def mistakes(self) -> int:
        return sum(self.count(outcome) for outcome in Outcome if outcome is not Outcome.FOUND)


def outcomes(truth: Boxes, predicted: Boxes) -> Outcomes:
    """Match the predictions of a picture, the surest first, each with the object of its class that it overlaps most
    among those that are not taken."""
    iou = box_iou(*(torch.from_numpy(np.asarray(b.boxes_xyxy, float).reshape(-1, 4)) for b in (predicted, truth)))
    iou = iou.numpy()
    same_class = np.asarray(predicted.classes)[:, None] == np.asarray(truth.classes)[None]
    free = np.ones(len(truth.classes), bool)
    of_predictions = [Outcome.FALSE] * len(predicted.classes)
    for i in np.argsort(-np.asarray(predicted.scores), kind="stable"):
        candidates = np.where(same_class[i] & free, iou[i], 0)
        if candidates.max(initial=0) >= FOUND_IOU:
            free[candidates.argmax()] = False
            of_predictions[i] = Outcome.FOUND
        else:
            of_predictions[i] = _mistake(iou[i], same_class[i])
    return Outcomes(of_predictions, [Outcome.MISSED if is_free else Outcome.FOUND for is_free in free])


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
