"""What became of predictions and objects."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2_detr.evaluation.matching import Outcome, curve, outcomes
from d2_detr.structures.detections import Detections

CAT, DOG = 0, 1
OBJECT = [10, 10, 30, 30]


def boxes(*entries):
    """Each x0, y0, x1, y1, class and, for predictions, a score."""
    if not entries:
        return Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
    rows = np.array(entries, float)
    return Detections(rows[:, :4], rows[:, 4].astype(int), rows[:, 5] if rows.shape[1] > 5 else None)


@pytest.mark.parametrize(
    ("prediction", "outcome"),
    [
        ([*OBJECT, CAT], Outcome.FOUND),
        ([10, 10, 30, 20, CAT], Outcome.FOUND),  # an IoU of just a half
        ([10, 10, 30, 19, CAT], Outcome.BADLY_PLACED),
        ([*OBJECT, DOG], Outcome.WRONG_CLASS),
        ([60, 60, 80, 80, CAT], Outcome.FALSE),
        ([28, 28, 48, 48, CAT], Outcome.FALSE),  # hardly touches it
        ([10, 10, 30, 19, DOG], Outcome.FALSE),
    ],
    ids=["same", "half", "less_than_half", "other_class", "elsewhere", "corner", "other_class_near"],
)
def test_a_prediction_is_judged_by_overlap_and_class(prediction, outcome):
    result = outcomes(boxes([*OBJECT, CAT]), boxes([*prediction, 0.9]))
    assert result.of_predictions == [outcome]
    assert result.of_objects == [Outcome.FOUND if outcome is Outcome.FOUND else Outcome.MISSED]
    assert result.mistakes == (0 if outcome is Outcome.FOUND else 2)


def test_the_surest_prediction_takes_the_object_and_the_others_are_duplicates():
    result = outcomes(boxes([*OBJECT, CAT]), boxes([*OBJECT, CAT, 0.5], [10, 10, 30, 28, CAT, 0.8]))
    assert result.of_predictions == [Outcome.DUPLICATE, Outcome.FOUND]


def test_a_prediction_takes_a_free_object_before_one_that_is_taken():
    near = [10, 14, 30, 34]
    result = outcomes(boxes([*OBJECT, CAT], [*near, CAT]), boxes([*OBJECT, CAT, 0.9], [10, 11, 30, 31, CAT, 0.8]))
    assert result.of_predictions == [Outcome.FOUND] * 2 and result.count(Outcome.MISSED) == 0


def test_pictures_without_objects_or_predictions():
    assert outcomes(boxes(), boxes([*OBJECT, CAT, 0.9])).of_predictions == [Outcome.FALSE]
    assert outcomes(boxes([*OBJECT, CAT]), boxes()).count(Outcome.MISSED) == 1
    assert outcomes(boxes(), boxes()).mistakes == 0


def test_what_lies_in_a_crowd_of_its_class_counts_for_nothing():
    truth = boxes([*OBJECT, CAT], [50, 50, 90, 90, CAT])._replace(is_crowd=np.array([False, True]))
    inside = [60, 60, 70, 70]
    half_outside = [40, 50, 61, 90]
    predicted = boxes([*OBJECT, CAT, 0.9], [*inside, CAT, 0.8], [*inside, DOG, 0.8], [*half_outside, CAT, 0.8])
    result = outcomes(truth, predicted)
    assert result.of_predictions == [Outcome.FOUND, Outcome.IN_CROWD, Outcome.FALSE, Outcome.IN_CROWD]
    assert result.of_objects == [Outcome.FOUND, Outcome.IN_CROWD] and result.mistakes == 1
    assert outcomes(truth, boxes([39, 50, 60, 90, CAT, 0.8])).of_predictions == [Outcome.FALSE], (
        "the larger half is out"
    )


def test_precision_and_recall_at_each_score_and_the_best_threshold():
    found = curve([0.9, 0.3, 0.6, 0.6], [True, False, True, False], num_objects=4)
    assert found.scores.tolist() == [0.9, 0.6, 0.3]
    assert found.precision.tolist() == pytest.approx([1, 2 / 3, 1 / 2])
    assert found.recall.tolist() == [0.25, 0.5, 0.5]
    assert found.f1.tolist() == pytest.approx([0.4, 4 / 7, 0.5])
    assert found.best_threshold == 0.6
    nothing = curve([], [], num_objects=3)
    assert len(nothing.scores) == 0 and nothing.best_threshold == 1.0
    assert curve([0.5], [False], num_objects=0).best_threshold == 1.0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40))
def test_recall_rises_as_the_threshold_falls_and_ends_with_all_that_was_found(predictions):
    scores, found = [s for s, _ in predictions], [f for _, f in predictions]
    result = curve(scores, found, num_objects=50)
    assert (np.diff(result.recall) >= 0).all() and (np.diff(result.scores) < 0).all()
    assert (result.recall[-1] if predictions else 0) == pytest.approx(sum(found) / 50)
