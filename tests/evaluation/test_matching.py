"""Matching of predictions to ground truth, and the error types."""

import numpy as np
import pytest

from d2_detr.evaluation.matching import Outcome, match_detections
from d2_detr.structures.detections import Detections

CAT, DOG = 0, 1
OBJECT = [10, 10, 30, 30]


def boxes(*entries):
    """Each entry: x0, y0, x1, y1, class and, for predictions, a score."""
    if not entries:
        return Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
    rows = np.array(entries, float)
    return Detections(rows[:, :4], rows[:, 4].astype(int), rows[:, 5] if rows.shape[1] > 5 else None)


@pytest.mark.parametrize(
    ("prediction", "outcome"),
    [
        ([*OBJECT, CAT], Outcome.TRUE_POSITIVE),
        ([10, 10, 30, 20, CAT], Outcome.TRUE_POSITIVE),  # an IoU of exactly 0.5
        ([10, 10, 30, 19, CAT], Outcome.LOCALIZATION),
        ([*OBJECT, DOG], Outcome.CLASSIFICATION),
        ([60, 60, 80, 80, CAT], Outcome.BACKGROUND),
        ([28, 28, 48, 48, CAT], Outcome.BACKGROUND),  # an IoU below 0.1
        ([10, 10, 30, 19, DOG], Outcome.BACKGROUND),
    ],
    ids=["same", "half", "less_than_half", "other_class", "elsewhere", "corner", "other_class_near"],
)
def test_iou_and_class_decide_the_outcome(prediction, outcome):
    result = match_detections(boxes([*OBJECT, CAT]), boxes([*prediction, 0.9]))
    is_match = outcome is Outcome.TRUE_POSITIVE
    assert result.pred == [outcome]
    assert result.gt == [Outcome.TRUE_POSITIVE if is_match else Outcome.MISSED]
    assert result.num_errors == (0 if is_match else 2)


def test_highest_score_matches_and_others_are_duplicates():
    result = match_detections(boxes([*OBJECT, CAT]), boxes([*OBJECT, CAT, 0.5], [10, 10, 30, 28, CAT, 0.8]))
    assert result.pred == [Outcome.DUPLICATE, Outcome.TRUE_POSITIVE]


def test_unmatched_objects_are_preferred_to_matched_ones():
    near = [10, 14, 30, 34]
    result = match_detections(
        boxes([*OBJECT, CAT], [*near, CAT]), boxes([*OBJECT, CAT, 0.9], [10, 11, 30, 31, CAT, 0.8])
    )
    assert result.pred == [Outcome.TRUE_POSITIVE] * 2 and result.count(Outcome.MISSED) == 0


def test_ground_truth_and_predictions_may_be_empty():
    assert match_detections(boxes(), boxes([*OBJECT, CAT, 0.9])).pred == [Outcome.BACKGROUND]
    assert match_detections(boxes([*OBJECT, CAT]), boxes()).count(Outcome.MISSED) == 1
    assert match_detections(boxes(), boxes()).num_errors == 0


def test_predictions_in_a_crowd_of_their_class_are_ignored():
    ground_truth = boxes([*OBJECT, CAT], [50, 50, 90, 90, CAT])._replace(is_crowd=np.array([False, True]))
    inside = [60, 60, 70, 70]
    half_outside = [40, 50, 61, 90]
    predictions = boxes([*OBJECT, CAT, 0.9], [*inside, CAT, 0.8], [*inside, DOG, 0.8], [*half_outside, CAT, 0.8])
    result = match_detections(ground_truth, predictions)
    assert result.pred == [Outcome.TRUE_POSITIVE, Outcome.CROWD, Outcome.BACKGROUND, Outcome.CROWD]
    assert result.gt == [Outcome.TRUE_POSITIVE, Outcome.CROWD] and result.num_errors == 1
    mostly_outside = boxes([39, 50, 60, 90, CAT, 0.8])
    assert match_detections(ground_truth, mostly_outside).pred == [Outcome.BACKGROUND]
