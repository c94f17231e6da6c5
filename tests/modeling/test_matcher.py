from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2_detr.modeling.matcher import HungarianMatcher
from d2_detr.utils.errors import InputError

NUM_CLASSES = 3


def random_batch(seed, num_queries, sizes):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(sizes), num_queries, NUM_CLASSES + 1, generator=generator)
    boxes = torch.rand(len(sizes), num_queries, 4, generator=generator) * 0.4 + 0.1
    targets = [
        {
            "labels": torch.randint(0, NUM_CLASSES, (size,), generator=generator),
            "boxes": torch.rand(size, 4, generator=generator) * 0.4 + 0.1,
        }
        for size in sizes
    ]
    return logits, boxes, targets


batches = {
    "seed": st.integers(0, 10**6),
    "num_queries": st.integers(1, 5),
    "sizes": st.lists(st.integers(0, 4), min_size=1, max_size=3),
}


@given(**batches)
@settings(max_examples=40, deadline=None)
def test_the_assignment_has_the_lowest_cost(seed, num_queries, sizes):
    logits, boxes, targets = random_batch(seed, num_queries, sizes)
    matcher = HungarianMatcher()
    for i, (queries, objects) in enumerate(matcher(logits, boxes, targets)):
        cost = matcher.cost(logits[i : i + 1], boxes[i : i + 1], targets[i : i + 1])[0]
        wide = cost if cost.shape[0] >= cost.shape[1] else cost.T
        lowest = min(
            sum(wide[row, column].item() for column, row in enumerate(rows))
            for rows in permutations(range(wide.shape[0]), wide.shape[1])
        )
        assert len(queries) == len(objects) == min(num_queries, sizes[i])
        assert cost[queries, objects].sum().item() == pytest.approx(lowest, abs=1e-4)


@given(**batches)
@settings(max_examples=25, deadline=None)
def test_images_of_a_batch_are_matched_independently(seed, num_queries, sizes):
    logits, boxes, targets = random_batch(seed, num_queries, sizes)
    together = HungarianMatcher()(logits, boxes, targets)
    for i, match in enumerate(together):
        alone = HungarianMatcher()(logits[i : i + 1], boxes[i : i + 1], targets[i : i + 1])[0]
        assert [m.tolist() for m in match] == [m.tolist() for m in alone]


def test_reordering_the_queries_reorders_the_assignment():
    logits, boxes, targets = random_batch(7, 5, [3])
    order = torch.tensor([3, 0, 4, 1, 2])
    [before] = HungarianMatcher()(logits, boxes, targets)
    [after] = HungarianMatcher()(logits[:, order], boxes[:, order], targets)
    assert set(zip(before.queries.tolist(), before.objects.tolist(), strict=True)) == set(
        zip(order[after.queries].tolist(), after.objects.tolist(), strict=True)
    )


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((1, 0, 0), 1), ((0, 1, 0), 0), ((0, 0, 1), 0), ((100, 1, 1), 1)],
    ids=["class", "l1", "giou", "class-outweighs-boxes"],
)
def test_each_weight_scales_its_own_term(weights, expected):
    """Query 0 has the box of the object, query 1 its class."""
    logits = torch.tensor([[[0.0, 5, 0, 0], [5, 0, 0, 0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]]])
    targets = [{"labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}]
    queries, _ = HungarianMatcher(*weights)(logits, boxes, targets)[0]
    assert queries.tolist() == [expected]


def test_non_finite_predictions_are_still_matched():
    logits, boxes, targets = random_batch(0, 4, [2])
    queries, objects = HungarianMatcher()(logits * float("nan"), boxes, targets)[0]
    assert len(queries) == len(objects) == 2


def test_all_zero_weights_are_refused():
    with pytest.raises(InputError, match="all weights"):
        HungarianMatcher(0, 0, 0)
