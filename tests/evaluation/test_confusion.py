"""Which class is taken for which."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2_detr.evaluation.confusion import confusion
from d2_detr.evaluation.matching import Outcome, outcomes
from d2_detr.structures.detections import Detections

CAT, DOG, NONE = 0, 1, None
OBJECT, ELSEWHERE = [10, 10, 30, 30], [60, 60, 80, 80]


def boxes(*entries):
    rows = np.array(entries, float).reshape(-1, 6)
    return Detections(rows[:, :4], rows[:, 4].astype(int), rows[:, 5])


def counted(truth, predicted):
    truth, predicted = (boxes(*([*box, label, score] for box, label, score in side)) for side in (truth, predicted))
    return confusion(truth, predicted, outcomes(truth, predicted))


@pytest.mark.parametrize(
    ("predicted", "cells"),
    [
        ([(OBJECT, CAT, 0.9)], {(CAT, CAT): 1}),
        ([(OBJECT, DOG, 0.9)], {(CAT, DOG): 1}),
        ([(OBJECT, DOG, 0.9), (OBJECT, CAT, 0.2)], {(CAT, CAT): 1, (NONE, DOG): 1}),
        ([(OBJECT, DOG, 0.9), (OBJECT, DOG, 0.2)], {(CAT, DOG): 1, (NONE, DOG): 1}),
        ([(OBJECT, CAT, 0.9), (OBJECT, CAT, 0.2)], {(CAT, CAT): 1, (NONE, CAT): 1}),
        ([(ELSEWHERE, CAT, 0.9)], {(CAT, NONE): 1, (NONE, CAT): 1}),
        ([], {(CAT, NONE): 1}),
    ],
    ids=["found", "confused", "found_after_all", "confused_twice", "found_twice", "elsewhere", "missed"],
)
def test_an_object_is_found_taken_for_something_else_or_missed(predicted, cells):
    assert counted([(OBJECT, CAT, 0)], predicted) == cells


def test_pictures_without_anything():
    assert not counted([], [])


places = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.floats(0, 1)), max_size=6)


@given(places, places)
def test_every_object_and_every_prediction_is_counted_once(truth, predicted):
    """Of four places that partly overlap."""
    sides = [
        boxes(*([8 * place, 0, 8 * place + 24, 20, label, score] for place, label, score in side))
        for side in (truth, predicted)
    ]
    given_out = outcomes(*sides)
    counts = confusion(*sides, given_out)
    for label in (CAT, DOG):
        assert sum(counts[label, other] for other in (CAT, DOG, NONE)) == (sides[0].classes == label).sum()
        assert sum(counts[other, label] for other in (CAT, DOG, NONE)) == (sides[1].classes == label).sum()
        of_class = zip(given_out.of_objects, sides[0].classes, strict=True)
        assert counts[label, label] == sum(o is Outcome.FOUND and c == label for o, c in of_class)
