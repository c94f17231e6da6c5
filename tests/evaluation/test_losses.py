"""Losses of an evaluation."""

import pytest
import torch

from d2_detr.evaluation.losses import LossEvaluator
from tests.modeling.small import MASKS, picture, tiny


def output(**values):
    errors = {name: torch.tensor(values.pop(name)) for name in ("class_error",) if name in values}
    return {"losses": {name: torch.tensor(value) for name, value in values.items()}, "errors": errors}


def test_losses_are_means_over_the_pictures_and_errors_over_those_that_have_them():
    evaluator = LossEvaluator()
    evaluator.process(
        [{}, {}], [output(loss_ce=1.0, loss_ce_0=2.0, class_error=50.0), output(loss_ce=3.0, loss_ce_0=4.0)]
    )
    assert evaluator.evaluate() == {"validation": {"total_loss": 5.0, "loss_ce": 2.0, "class_error": 50.0}}
    evaluator.reset()
    evaluator.process([{}], [{"instances": None}])
    assert evaluator.evaluate() == {}, "no truth, no losses"


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
