"""Losses of an evaluation."""

import pytest
import torch

from d2_detr.evaluation.losses import LossEvaluator
from tests.modeling.small import MASKS, picture, tiny

from detectron2.utils.events import EventStorage

NUM_QUERIES, NO_OBJECT_WEIGHT = 15, 0.25  # of the model


@torch.no_grad()
@pytest.mark.parametrize("opts", [(), MASKS], ids=["boxes", "masks"])
def test_the_losses_of_pictures_one_by_one_are_those_of_all_in_one_batch_of_training(opts):
    """Many objects, few, none. Without dropout, and with frozen norms."""
    model, evaluator = tiny(*opts), LossEvaluator(NUM_QUERIES, NO_OBJECT_WEIGHT)
    box = [4, 4, 20, 30]
    pictures = [picture(64, 96, [box, [20, 30, 44, 60], [8, 8, 60, 60]], [1, 0, 1]), picture(64, 96, [box], [0])]
    pictures.append(picture(64, 96, [], []))
    with EventStorage() as storage:
        training = model.train()(pictures)
        errors = {name: storage.latest()[name][0] for name in ("class_error", "cardinality_error")}
    model.eval()
    for one in pictures:
        evaluator.process([one], model([one]))
    [found] = evaluator.evaluate().values()
    assert found.pop("total_loss") == pytest.approx(float(sum(training.values())), rel=1e-4)
    assert {"loss_ce", "loss_bbox", "loss_giou"} < set(found)
    for name, value in found.items():
        assert value == pytest.approx(float(errors[name] if name in errors else training[name]), rel=1e-4), name


def test_without_truth_there_are_no_losses():
    evaluator = LossEvaluator(NUM_QUERIES, NO_OBJECT_WEIGHT)
    evaluator.process([{}], [{"instances": None}])
    assert evaluator.evaluate() == {}


@torch.no_grad()
def test_where_no_picture_has_an_object_the_classification_is_measured_alone():
    model, evaluator = tiny().eval(), LossEvaluator(NUM_QUERIES, NO_OBJECT_WEIGHT)
    empty = picture(64, 96, [], [])
    evaluator.process([empty], model([empty]))
    assert set(evaluator.evaluate()["validation"]) == {"total_loss", "loss_ce", "cardinality_error"}


@torch.no_grad()
@pytest.mark.parametrize("opts", [(), MASKS], ids=["boxes", "masks"])
def test_the_losses_of_a_picture_in_evaluation_are_those_that_it_has_in_training(opts):
    """Without dropout, and with frozen norms."""
    model = tiny(*opts)
    inputs = picture(64, 96, [[4, 4, 20, 30], [20, 30, 44, 60]], [1, 0])
    training = model.train()([inputs])
    [found] = model.eval()([inputs])
    assert set(found["losses"]) == set(training)
    for name, loss in training.items():
        torch.testing.assert_close(found["losses"][name], loss, rtol=1e-4, atol=1e-6)
    assert {"class_error", "cardinality_error"} == set(found["errors"])


@torch.no_grad()
def test_only_pictures_with_a_truth_have_losses():
    first, second = tiny().eval()([picture(64, 96, [], []), picture(64, 96)])
    assert "losses" in first and "losses" not in second
