import math

import pytest
import torch

from d2_detr.modeling.criterion import SetCriterion
from d2_detr.modeling.matcher import HungarianMatcher

BOX = [0.5, 0.5, 0.2, 0.4]


def criterion(**kwargs):
    return SetCriterion(num_classes=2, matcher=HungarianMatcher(), **kwargs)


def target(labels=(), boxes=()):
    return {"labels": torch.tensor(labels, dtype=torch.int64), "boxes": torch.tensor(boxes).reshape(-1, 4)}


def test_losses_of_one_object_match_a_hand_computation():
    """Uniform logits have cross entropy log 3; the shifted box L1 0.1, GIoU 0.1 / 0.3."""
    logits = torch.zeros(1, 1, 2, 3)
    boxes = torch.tensor([[[[0.6, 0.5, 0.2, 0.4], [0.1, 0.1, 0.1, 0.1]]]])
    losses, _ = criterion()(logits, boxes, [target([1], [BOX])])
    assert losses["loss_ce"].item() == pytest.approx(math.log(3))
    assert losses["loss_bbox"].item() == pytest.approx(5 * 0.1)
    assert losses["loss_giou"].item() == pytest.approx(2 * (1 - 0.1 / 0.3), rel=1e-5)


def test_no_object_has_a_tenth_of_the_weight():
    """Query 0 is correct (loss 0), query 1 is a false positive: (0.1 * 20) / (1 + 0.1)."""
    logits = torch.tensor([[[[20.0, 0, 0], [20.0, 0, 0]]]])
    boxes = torch.tensor([[[BOX, [0.1, 0.1, 0.1, 0.1]]]])
    losses, _ = criterion()(logits, boxes, [target([0], [BOX])])
    assert losses["loss_ce"].item() == pytest.approx(0.1 * 20 / 1.1, rel=1e-4)


def test_every_layer_has_losses_and_the_last_has_no_suffix():
    losses, _ = criterion()(torch.randn(3, 2, 4, 3), torch.rand(3, 2, 4, 4), [target([0], [BOX]), target()])
    terms = ("loss_ce", "loss_bbox", "loss_giou")
    assert set(losses) == {term + suffix for term in terms for suffix in ("", "_0", "_1")}


def test_errors_are_not_among_the_losses():
    losses, errors = criterion()(torch.randn(2, 1, 4, 3), torch.rand(2, 1, 4, 4), [target([0], [BOX])])
    assert set(errors) == {"class_error", "cardinality_error"}
    assert not set(errors) & set(losses)


def test_class_error_is_the_percentage_of_wrong_matched_queries():
    logits = torch.tensor([[[[9.0, 0, 0], [9.0, 0, 0], [0, 0, 9.0]]]])
    boxes = torch.tensor([[[BOX, [0.2, 0.2, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1]]]])
    _, errors = criterion()(logits, boxes, [target([0, 1], [BOX, [0.2, 0.2, 0.1, 0.1]])])
    assert errors["class_error"].item() == 50
    assert errors["cardinality_error"].item() == 0


def test_cardinality_error_counts_queries_that_predict_an_object():
    logits = torch.tensor([[[[9.0, 0, 0]] * 3], [[[9.0, 0, 0]] * 3]]).transpose(0, 1)
    _, errors = criterion()(logits, torch.rand(1, 2, 3, 4), [target([0], [BOX]), target()])
    assert errors["cardinality_error"].item() == pytest.approx((2 + 3) / 2)


def test_a_batch_without_objects_has_losses_but_no_class_error():
    logits = torch.zeros(1, 2, 4, 3, requires_grad=True)
    boxes = torch.full((1, 2, 4, 4), 0.5, requires_grad=True)
    losses, errors = criterion()(logits, boxes, [target(), target()])
    sum(losses.values()).backward()
    assert losses["loss_bbox"] == losses["loss_giou"] == 0
    assert losses["loss_ce"].item() == pytest.approx(math.log(3))
    assert logits.grad.abs().sum() > 0 and torch.isfinite(boxes.grad).all()
    assert "class_error" not in errors


def test_all_queries_are_supervised_if_there_are_more_objects():
    boxes = torch.rand(1, 1, 2, 4).requires_grad_()
    losses, _ = criterion()(torch.zeros(1, 1, 2, 3), boxes, [target([0, 1, 0], [BOX] * 3)])
    losses["loss_bbox"].backward()
    assert (boxes.grad.abs().sum(-1) > 0).all()


def test_non_finite_predictions_give_non_finite_losses():
    boxes = torch.full((1, 1, 2, 4), float("nan"))
    losses, _ = criterion()(torch.zeros(1, 1, 2, 3), boxes, [target([0], [BOX])])
    assert losses["loss_bbox"].isnan() and losses["loss_giou"].isnan() and losses["loss_ce"].isfinite()


def test_class_weights_are_not_saved():
    assert criterion(no_object_weight=0.4).state_dict() == {}


@pytest.mark.parametrize("objects", [0, 1, 4])
def test_box_losses_are_divided_by_the_number_of_objects(objects):
    boxes = torch.tensor([[[[0.6, 0.5, 0.2, 0.4]] * 4]])
    losses, _ = criterion()(torch.zeros(1, 1, 4, 3), boxes, [target([0] * objects, [BOX] * objects)])
    assert losses["loss_bbox"].item() == pytest.approx(0.5 if objects else 0)
