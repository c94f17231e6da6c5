"""Parity with native DETR: outputs, losses, assignments and gradients.

The values were recorded by tests/reference/record_native.py with the same weights, on a padded batch of three images
of different sizes.
"""

import pytest
import torch
from safetensors.torch import load_file

from d2_detr.modeling.criterion import SetCriterion
from d2_detr.modeling.matcher import HungarianMatcher
from tests.modeling.parity import build_network, pad
from tests.reference import native


@pytest.fixture(scope="module", params=native.MODELS)
def parity(request):
    """Return recorded and computed values of a model."""
    recorded = load_file(native.FOLDER / f"native_{request.param}.safetensors")
    return recorded, compute(**native.MODELS[request.param])


def test_outputs_equal_native_detr_to_1e_5_of_the_maximum(parity):
    recorded, computed = parity
    for name in ("memory", "states", "pred_logits", "pred_boxes"):
        tolerance = 1e-5 * recorded[name].abs().max().item()
        torch.testing.assert_close(
            computed[name], recorded[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_assignments_of_every_layer_equal_native_detr(parity):
    recorded, computed = parity
    names = names_with_prefix(recorded, "match/")
    assert len(names) == 3 * len(recorded["states"]), "three images, every decoder layer"
    for name in names:
        assert computed[name].tolist() == recorded[name].tolist(), name


def test_losses_and_errors_equal_native_detr_to_1e_4(parity):
    recorded, computed = parity
    names = names_with_prefix(recorded, "loss/")
    assert names == names_with_prefix(computed, "loss/") and len(names) == 3 * len(recorded["states"])
    for name in (*names, *names_with_prefix(recorded, "error/")):
        torch.testing.assert_close(computed[name], recorded[name], rtol=1e-4, atol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", native.GRADIENTS)
def test_gradients_equal_native_detr_to_1e_4(parity, name):
    recorded, computed = (values[f"gradient/{name}"] for values in parity)
    assert recorded.abs().max() > 1e-3, "a zero gradient would prove nothing"
    torch.testing.assert_close(computed, recorded, rtol=1e-4, atol=1e-4 * recorded.abs().max().item())


def names_with_prefix(values, prefix):
    return sorted(name for name in values if name.startswith(prefix))


def compute(**sizes):
    network = build_network(**sizes)
    native.fill(network.state_dict())
    hidden = {}
    network.transformer.register_forward_hook(lambda _, __, out: hidden.update(states=out[0], memory=out[1]))
    images, padding_mask = pad(native.images())
    outputs = network.train()(images, padding_mask)

    matcher = HungarianMatcher()
    criterion = SetCriterion(num_classes=native.NUM_CLASSES, matcher=matcher).double()
    targets = native.targets()
    losses, errors = criterion(**outputs, targets=targets)
    sum(losses.values()).backward()

    values = {**hidden, **outputs}
    for layer, (logits, boxes) in enumerate(zip(outputs["pred_logits"], outputs["pred_boxes"], strict=True)):
        for image, match in enumerate(matcher(logits, boxes, targets)):
            values[f"match/{layer}/{image}"] = torch.stack(match)
    values |= {f"loss/{name}": loss for name, loss in losses.items()}
    values |= {f"error/{name}": error for name, error in errors.items()}
    parameters = dict(network.named_parameters())
    values |= {f"gradient/{name}": native.sample(parameters[name].grad) for name in native.GRADIENTS}
    return {name: f.detach().float() if f.is_floating_point() else f for name, f in values.items()}
