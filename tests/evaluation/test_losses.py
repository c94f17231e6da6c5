"""Losses computed in an evaluation."""

import pytest
import torch

from d2_detr.evaluation.losses import LossEvaluator
from tests.modeling.small import MASKS, make_input, tiny

from detectron2.utils.events import EventStorage

NUM_QUERIES, NO_OBJECT_WEIGHT = 15, 0.25  # those of the model


@torch.no_grad()
@pytest.mark.parametrize("opts", [(), MASKS], ids=["boxes", "masks"])
def test_losses_of_single_images_average_to_those_of_a_batch(opts):
    """Images with several, one and no objects, without dropout and with frozen norms."""
    model, evaluator = tiny(*opts), LossEvaluator(NUM_QUERIES, NO_OBJECT_WEIGHT)
    box = [4, 4, 20, 30]
    images = [make_input(64, 96, [box, [20, 30, 44, 60], [8, 8, 60, 60]], [1, 0, 1]), make_input(64, 96, [box], [0])]
    images.append(make_input(64, 96, [], []))
    with EventStorage() as storage:
        training = model.train()(images)
        errors = {name: storage.latest()[name][0] for name in ("class_error", "cardinality_error")}
    model.eval()
    for inputs in images:
        evaluator.process([inputs], model([inputs]))
    [measured] = evaluator.evaluate().values()
    assert measured.pop("total_loss") == pytest.approx(float(sum(training.values())), rel=1e-4)
    assert {"loss_ce", "loss_bbox", "loss_giou"} < set(measured)
    for name, value in measured.items():
        assert value == pytest.approx(float(errors[name] if name in errors else training[name]), rel=1e-4), name


def test_without_ground_truth_there_are_no_losses():
    evaluator = LossEvaluator(NUM_QUERIES, NO_OBJECT_WEIGHT)
    evaluator.process([{}], [{"instances": None}])
    assert evaluator.evaluate() == {}


@torch.no_grad()
def test_without_objects_only_classification_is_measured():
    model, evaluator = tiny().eval(), LossEvaluator(NUM_QUERIES, NO_OBJECT_WEIGHT)
    empty = make_input(64, 96, [], [])
    evaluator.process([empty], model([empty]))
    assert set(evaluator.evaluate()["validation"]) == {"total_loss", "loss_ce", "cardinality_error"}


@torch.no_grad()
@pytest.mark.parametrize("opts", [(), MASKS], ids=["boxes", "masks"])
def test_an_image_has_the_same_losses_as_in_training(opts):
    """The model has no dropout and frozen norms."""
    model = tiny(*opts)
    inputs = make_input(64, 96, [[4, 4, 20, 30], [20, 30, 44, 60]], [1, 0])
    training = model.train()([inputs])
    [output] = model.eval()([inputs])
    assert set(output["losses"]) == set(training)
    for name, loss in training.items():
        torch.testing.assert_close(output["losses"][name], loss, rtol=1e-4, atol=1e-6)
    assert {"class_error", "cardinality_error"} == set(output["errors"])


@torch.no_grad()
def test_only_images_with_ground_truth_have_losses():
    first, second = tiny().eval()([make_input(64, 96, [], []), make_input(64, 96)])
    assert "losses" in first and "losses" not in second
