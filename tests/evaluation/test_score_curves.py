"""Precision, recall and F1 by score threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2_detr.evaluation.score_curves import compute_score_curve


def test_precision_and_recall_at_each_score_and_best_threshold():
    curve = compute_score_curve([0.9, 0.3, 0.6, 0.6], [True, False, True, False], num_gt=4)
    assert curve.scores.tolist() == [0.9, 0.6, 0.3]
    assert curve.precision.tolist() == pytest.approx([1, 2 / 3, 1 / 2])
    assert curve.recall.tolist() == [0.25, 0.5, 0.5]
    assert curve.f1.tolist() == pytest.approx([0.4, 4 / 7, 0.5])
    assert curve.best_threshold == 0.6


def test_without_true_positives_there_is_no_best_threshold():
    empty = compute_score_curve([], [], num_gt=3)
    assert len(empty.scores) == 0 and empty.best_threshold is None
    assert compute_score_curve([0.5], [False], num_gt=0).best_threshold is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40))
def test_recall_increases_as_the_threshold_decreases(predictions):
    scores, hits = [s for s, _ in predictions], [h for _, h in predictions]
    curve = compute_score_curve(scores, hits, num_gt=50)
    assert (np.diff(curve.recall) >= 0).all() and (np.diff(curve.scores) < 0).all()
    assert (curve.recall[-1] if predictions else 0) == pytest.approx(sum(hits) / 50)
