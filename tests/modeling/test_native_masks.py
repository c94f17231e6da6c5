"""Parity of the mask head with native DETR: logits, losses and gradients."""

import pytest
import torch

from d2_detr.checkpoint.layouts import MASK_PARTS
from d2_detr.modeling.criterion import SetCriterion
from d2_detr.modeling.matcher import HungarianMatcher
from tests.modeling.parity import build_network, pad
from tests.reference import native


@pytest.fixture(scope="module", params=native.MASK_MODELS)
def parity(request):
    """Return recorded and computed values, and the shapes in both state dicts."""
    recorded, checkpoint = native.read(f"native_{request.param}")
    computed, state_dict = compute(**native.MASK_MODELS[request.param])
    return recorded, computed, *({n: tuple(t.shape) for n, t in d.items()} for d in (checkpoint, state_dict))


def test_names_and_shapes_equal_native_detr(parity):
    _, _, theirs, ours = parity
    assert ours == theirs


def test_mask_logits_equal_native_detr_to_1e_5_of_the_maximum(parity):
    recorded, computed, _, _ = parity
    assert recorded["pred_masks"].std() > 0.05 * recorded["largest"], "constant logits would prove nothing"
    tolerance = 1e-5 * recorded["largest"].item()
    torch.testing.assert_close(computed["pred_masks"], recorded["pred_masks"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["loss_mask", "loss_dice"])
def test_mask_losses_equal_native_detr_to_1e_4(parity, name):
    recorded, computed = (values[f"loss/{name}"] for values in parity[:2])
    assert recorded > 0.01
    torch.testing.assert_close(computed, recorded, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", native.MASK_GRADIENTS)
def test_gradients_of_mask_losses_equal_native_detr_to_1e_4(parity, name):
    recorded, computed = (values[f"gradient/{name}"] for values in parity[:2])
    assert recorded.abs().max() > 1e-7, "a zero gradient would prove nothing"
    torch.testing.assert_close(computed, recorded, rtol=1e-4, atol=1e-4 * recorded.abs().max().item())


def compute(**sizes):
    network = build_network(masks=True, **sizes).train()
    state_dict = {n if n.startswith(MASK_PARTS) else f"detr.{n}": t for n, t in network.state_dict().items()}
    native.fill(state_dict)
    outputs = network(*pad(native.images()))
    inputs = outputs["mask_inputs"]
    criterion = SetCriterion(num_classes=native.NUM_CLASSES, matcher=HungarianMatcher()).double()
    targets = [t | {"masks": masks} for t, masks in zip(native.targets(), native.gt_masks(), strict=True)]
    losses, _ = criterion(
        outputs["pred_logits"],
        outputs["pred_boxes"],
        targets,
        lambda images, queries: network.predict_masks(inputs, images, queries),
    )
    (losses["loss_mask"] + losses["loss_dice"]).backward()

    batch, num_queries, _ = inputs.states.shape
    pairs = torch.cartesian_prod(torch.arange(batch), torch.arange(num_queries))
    logits = network.predict_masks(inputs, *pairs.unbind(1))
    parameters = dict(network.named_parameters())
    values = {"pred_masks": native.sample(logits, 20_000), "largest": logits.abs().max()}
    values |= {f"loss/{name}": losses[name] for name in ("loss_mask", "loss_dice")}
    values |= {f"gradient/{name}": native.sample(parameters[name].grad) for name in native.MASK_GRADIENTS}
    return {name: value.detach().float() for name, value in values.items()}, state_dict
