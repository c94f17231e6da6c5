"""Parity with native DETR: outputs, losses of every layer, assignments and gradients on the same weights.

The figures were recorded by tests/reference/record_native.py on a padded batch of three unequal pictures.
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
    """Recorded figures of one model, and the same computed here."""
    recorded = load_file(native.FOLDER / f"native_{request.param}.safetensors")
    return recorded, compute(**native.MODELS[request.param])


def test_outputs_equal_native_detr_to_1e_5_of_the_largest_magnitude(parity):
    recorded, computed = parity
    for name in ("memory", "states", "pred_logits", "pred_boxes"):
        tolerance = 1e-5 * recorded[name].abs().max().item()
        torch.testing.assert_close(
            computed[name], recorded[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_every_query_is_assigned_as_in_native_detr_in_every_layer(parity):
    recorded, computed = parity
    names = matching(recorded, "match/")
    assert len(names) == 3 * len(recorded["states"]), "three pictures, every decoder layer"
    for name in names:
        assert computed[name].tolist() == recorded[name].tolist(), name


def test_loss_terms_of_every_layer_and_errors_equal_native_detr_to_1e_4(parity):
    recorded, computed = parity
    names = matching(recorded, "loss/")
    assert names == matching(computed, "loss/") and len(names) == 3 * len(recorded["states"])
    for name in (*names, *matching(recorded, "error/")):
        torch.testing.assert_close(computed[name], recorded[name], rtol=1e-4, atol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", native.GRADIENTS)
def test_gradients_equal_native_detr_to_1e_4(parity, name):
    recorded, computed = (figures[f"gradient/{name}"] for figures in parity)
    assert recorded.abs().max() > 1e-3, "a gradient of nothing proves nothing"
    torch.testing.assert_close(computed, recorded, rtol=1e-4, atol=1e-4 * recorded.abs().max().item())


def matching(figures, prefix):
    return sorted(name for name in figures if name.startswith(prefix))


def compute(**sizes):
    network = build_network(**sizes)
    native.fill(network.state_dict())
    seen = {}
    network.transformer.register_forward_hook(lambda _, __, out: seen.update(states=out[0], memory=out[1]))
    images, padding_mask = pad(native.images())
    outputs = network.train()(images, padding_mask)

    matcher = HungarianMatcher()
    criterion = SetCriterion(num_classes=native.NUM_CLASSES, matcher=matcher).double()
    targets = native.targets()
    losses, errors = criterion(**outputs, targets=targets)
    sum(losses.values()).backward()

    figures = {**seen, **outputs}
    for layer, (logits, boxes) in enumerate(zip(outputs["pred_logits"], outputs["pred_boxes"], strict=True)):
        for picture, match in enumerate(matcher(logits, boxes, targets)):
            figures[f"match/{layer}/{picture}"] = torch.stack(match)
    figures |= {f"loss/{name}": loss for name, loss in losses.items()}
    figures |= {f"error/{name}": error for name, error in errors.items()}
    parameters = dict(network.named_parameters())
    figures |= {f"gradient/{name}": native.sample(parameters[name].grad) for name in native.GRADIENTS}
    return {name: f.detach().float() if f.is_floating_point() else f for name, f in figures.items()}
