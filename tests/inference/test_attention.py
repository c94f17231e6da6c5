"""The recorded attention of a model."""

import numpy as np
import pytest
import torch

from d2_detr.inference.attention import predict_with_attention, record_attention
from d2_detr.structures.attention import Attention
from tests.modeling.small import MASKS, make_input, tiny


@pytest.fixture(scope="module")
def recorded():
    model = tiny().eval()
    with torch.no_grad(), record_attention(model.detr.transformer) as attention:
        model([make_input(64, 96)])
        model([make_input(96, 64)])
    return model, attention


def test_weights_of_all_cells_and_queries_sum_to_1(recorded):
    _, recorded_attention = recorded
    assert [attention.encoder.shape for attention in recorded_attention] == [(4, 6, 4, 6), (6, 4, 6, 4)]
    assert [attention.decoder.shape for attention in recorded_attention] == [(15, 4, 6), (15, 6, 4)]
    for attention in recorded_attention:
        np.testing.assert_allclose(attention.encoder.sum((2, 3)), 1, rtol=1e-5)
        np.testing.assert_allclose(attention.decoder.sum((1, 2)), 1, rtol=1e-5)


def test_weights_are_the_mean_over_the_heads_of_the_last_layer(recorded):
    model, [attention, _] = recorded
    layer = model.detr.transformer.encoder.layers[-1]
    seen = {}
    handle = layer.self_attn.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(q=args[0], k=args[1]), with_kwargs=True
    )
    with torch.no_grad():
        model([make_input(64, 96)])
    handle.remove()
    weight, bias = layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias
    width = weight.shape[1]
    q, k = (
        (x[0] @ w.T + b).unflatten(1, (8, -1)).transpose(0, 1)
        for x, w, b in zip((seen["q"], seen["k"]), weight.split(width)[:2], bias.split(width)[:2], strict=True)
    )
    expected = (q @ k.transpose(1, 2) / (width // 8) ** 0.5).softmax(-1).mean(0).view(4, 6, 4, 6)
    torch.testing.assert_close(torch.from_numpy(attention.encoder), expected.detach(), rtol=1e-4, atol=1e-6)


def test_recording_does_not_change_predictions(recorded):
    model, _ = recorded
    inputs = make_input(64, 96)
    with torch.no_grad():
        [before] = model([inputs])
        with record_attention(model.detr.transformer) as attention:
            [meanwhile] = model([inputs])
        [later] = model([inputs])
    for output in (meanwhile, later):
        boxes = output["instances"].pred_boxes.tensor
        torch.testing.assert_close(boxes, before["instances"].pred_boxes.tensor, rtol=1e-4, atol=1e-3)
    assert len(attention) == 1


def test_predictions_are_returned_with_their_queries(recorded):
    model, [attention, _] = recorded
    inputs = make_input(64, 96) | {"height": 64, "width": 96}
    instances, queries, returned = predict_with_attention(model, inputs, 0.0)
    assert sorted(queries) == list(range(15)) and (instances.scores.diff() <= 0).all()
    np.testing.assert_allclose(returned.decoder, attention.decoder, rtol=1e-4, atol=1e-6)
    assert len(predict_with_attention(model, inputs, float(instances.scores[4]))[0]) == 5


def test_stuff_is_omitted_and_no_mask_is_computed(monkeypatch):
    model, inputs = tiny(*MASKS).eval(), make_input(64, 96) | {"height": 64, "width": 96}
    [label, *_] = predict_with_attention(model, inputs, 0.0)[0].pred_classes.tolist()
    model.stuff_classes = (label,)
    with torch.no_grad():
        [expected] = model([inputs])
    monkeypatch.setattr(model.detr, "predict_masks", None)
    instances, queries, _ = predict_with_attention(model, inputs, 0.0)
    assert label not in instances.pred_classes and len(queries) == len(instances) == len(expected["instances"])


def test_a_point_belongs_to_the_cell_that_contains_it():
    encoder = np.arange(2 * 3 * 2 * 3.0).reshape(2, 3, 2, 3)
    attention = Attention(encoder, np.zeros((1, 2, 3)))
    assert (attention.from_point(0.0, 0.0) == encoder[0, 0]).all()
    assert (attention.from_point(0.5, 0.49) == encoder[0, 1]).all()
    assert (attention.from_point(1.0, 1.0) == encoder[1, 2]).all()
