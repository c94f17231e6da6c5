"""Precision, recall and F1 as functions of the score threshold.

Shape shorthand: N distinct scores of the predictions for all images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

MIN_USEFUL_F1 = 0.1  # at its best threshold; below it a model has not learned enough to be used


@dataclass(frozen=True)
class ScoreCurve:
    """Precision and recall (N,) of the predictions with at least each of the scores (N,), in descending order.

    `num_gt` is the number of objects.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    num_gt: int

    @property
    def f1(self) -> np.ndarray:
        """F1 at each score (N,)."""
        total = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0)

    @property
    def best_f1(self) -> float:
        """The highest F1; 0 without a true positive."""
        return float(self.f1.max(initial=0))

    @property
    def best_threshold(self) -> float | None:
        """The score with the highest F1; None without a true positive.

        It is rounded down to two digits, so that the number that users read keeps the same predictions.
        """
        if not self.best_f1:
            return None
        return math.floor(round(100 * float(self.scores[self.f1.argmax()]), 6)) / 100

    def at(self, threshold: float) -> tuple[float, float]:
        """Return precision and recall at a threshold; NaN and 0 if no score reaches it."""
        number = int((self.scores >= threshold).sum())
        return (float(self.precision[number - 1]), float(self.recall[number - 1])) if number else (math.nan, 0.0)


def compute_score_curve(scores: ArrayLike, is_true_positive: ArrayLike, num_gt: int) -> ScoreCurve:
    """Compute the curve of the predictions for all images; equal scores share a point."""
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    sorted_scores, hits = np.asarray(scores, float)[order], np.cumsum(np.asarray(is_true_positive, bool)[order])
    last = np.append(np.diff(sorted_scores) != 0, True)[: len(sorted_scores)]  # prediction with each score
    counts = np.arange(1, len(sorted_scores) + 1)[last]
    return ScoreCurve(sorted_scores[last], hits[last] / counts, hits[last] / max(num_gt, 1), num_gt)
