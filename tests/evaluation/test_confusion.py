"""Confusion counts: pairs of ground truth class and predicted class."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2_detr.evaluation.confusion import count_confusions
from d2_detr.evaluation.matching import Outcome, match_detections
from d2_detr.structures.detections import Detections

CAT, DOG, NONE = 0, 1, None
OBJECT, ELSEWHERE = [10, 10, 30, 30], [60, 60, 80, 80]


def boxes(*entries):
    rows = np.array(entries, float).reshape(-1, 6)
    return Detections(rows[:, :4], rows[:, 4].astype(int), rows[:, 5])


def count(*entries):
    ground_truth, predictions = (boxes(*([*box, label, score] for box, label, score in rows)) for rows in entries)
    return count_confusions(ground_truth, predictions, match_detections(ground_truth, predictions))


@pytest.mark.parametrize(
    ("predictions", "pairs"),
    [
        ([(OBJECT, CAT, 0.9)], {(CAT, CAT): 1}),
        ([(OBJECT, DOG, 0.9)], {(CAT, DOG): 1}),
        ([(OBJECT, DOG, 0.9), (OBJECT, CAT, 0.2)], {(CAT, CAT): 1, (NONE, DOG): 1}),
        ([(OBJECT, DOG, 0.9), (OBJECT, DOG, 0.2)], {(CAT, DOG): 1, (NONE, DOG): 1}),
        ([(OBJECT, CAT, 0.9), (OBJECT, CAT, 0.2)], {(CAT, CAT): 1, (NONE, CAT): 1}),
        ([(ELSEWHERE, CAT, 0.9)], {(CAT, NONE): 1, (NONE, CAT): 1}),
        ([], {(CAT, NONE): 1}),
    ],
    ids=["true_positive", "confused", "correct_at_lower_score", "confused_twice", "duplicate", "elsewhere", "missed"],
)
def test_each_object_is_paired_with_a_class_or_missed(predictions, pairs):
    assert count([(OBJECT, CAT, 0)], predictions) == pairs


def test_an_image_without_boxes_has_no_pairs():
    assert not count([], [])


entries_by_position = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.floats(0, 1)), max_size=6)


@given(entries_by_position, entries_by_position)
def test_every_object_and_every_prediction_counts_once(objects, predicted):
    """Boxes are in four positions that partly overlap."""
    ground_truth, predictions = (
        boxes(*([8 * position, 0, 8 * position + 24, 20, label, score] for position, label, score in entries))
        for entries in (objects, predicted)
    )
    outcomes = match_detections(ground_truth, predictions)
    counts = count_confusions(ground_truth, predictions, outcomes)
    for label in (CAT, DOG):
        assert sum(counts[label, other] for other in (CAT, DOG, NONE)) == (ground_truth.classes == label).sum()
        assert sum(counts[other, label] for other in (CAT, DOG, NONE)) == (predictions.classes == label).sum()
        matched = zip(outcomes.gt, ground_truth.classes, strict=True)
        assert counts[label, label] == sum(o is Outcome.TRUE_POSITIVE and c == label for o, c in matched)
