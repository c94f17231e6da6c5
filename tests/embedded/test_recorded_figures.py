"""The detectron2 in use gives the figures that record_detectron2.py recorded.

They are compared group by group: a failure names the group and each of its figures that differs.
"""

import copy
import json

import pytest

import d2_detr  # noqa: F401  (settles which detectron2 answers)
from tests.reference.detectron2_figures import FILE, GROUPS, TOLERANCES, compute, differences

RECORDED = json.loads(FILE.read_text())


@pytest.mark.parametrize("group", GROUPS)
def test_figures_are_those_of_the_real_detectron2(group):
    lines = differences(RECORDED[group], compute(group), TOLERANCES.get(group, 1e-6))
    assert not lines, f"{len(lines)} of {group} differ:\n" + "\n".join(lines[:20])


def test_recorded_groups_are_those_that_are_computed():
    assert RECORDED.keys() == GROUPS.keys() and all(RECORDED.values())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda figures: figures["boxes"].update(area=6.00001), "/boxes/area: recorded 6.0, computed 6.00001"),
        (lambda figures: figures["boxes"].update(area=6), "/boxes/area: recorded 6.0, computed 6"),
        (lambda figures: figures["boxes"].pop("area"), "/boxes/area: only recorded"),
        (lambda figures: figures.update(new=1), "/new: not recorded"),
        (lambda figures: figures["order"].pop(), "/order: recorded [1, 2, 'nan'], computed [1, 2]"),
        (lambda figures: figures["order"].reverse(), "/order/0: recorded 1, computed 'nan'"),
        (lambda figures: figures.update(flag=1), "/flag: recorded True, computed 1"),
    ],
    ids=["value", "type", "missing", "new", "shorter", "order", "flag"],
)
def test_a_difference_is_reported_with_its_path(change, line):
    recorded = {"boxes": {"area": 6.0}, "order": [1, 2, "nan"], "flag": True}
    computed = copy.deepcopy(recorded)
    assert differences(recorded, computed) == []
    change(computed)
    assert differences(recorded, computed)[0] == line


def test_rounding_is_not_a_difference():
    assert differences([1.0, 0.0], [1.0 + 1e-7, 1e-12]) == []
    assert differences([1.0], [1.0 + 2e-6]) and not differences([1.0], [1.0 + 2e-6], rel=1e-5)
