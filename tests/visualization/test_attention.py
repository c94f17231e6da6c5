"""Attention as the model computes it, and the picture of it."""

import numpy as np
import pytest
import torch
from PIL import Image

from d2_detr.structures.detections import Detections
from d2_detr.visualization.attention import Attention, draw_attention, recording
from d2_detr.visualization.figures import save_png
from tests.modeling.small import picture, tiny


@pytest.fixture
def recorded():
    model = tiny().eval()
    with torch.no_grad(), recording(model.detr.transformer) as found:
        model([picture(64, 96)])
        model([picture(96, 64)])
    return model, found


def test_every_picture_has_the_weights_of_all_cells_and_queries_which_sum_to_1(recorded):
    _, found = recorded
    assert [attention.encoder.shape for attention in found] == [(4, 6, 4, 6), (6, 4, 6, 4)]
    assert [attention.decoder.shape for attention in found] == [(15, 4, 6), (15, 6, 4)]
    for attention in found:
        np.testing.assert_allclose(attention.encoder.sum((2, 3)), 1, rtol=1e-5)
        np.testing.assert_allclose(attention.decoder.sum((1, 2)), 1, rtol=1e-5)


def test_the_weights_are_those_of_the_last_layers_and_the_mean_of_their_heads(recorded):
    model, found = recorded
    layer = model.detr.transformer.encoder.layers[-1]
    seen = {}
    handle = layer.self_attn.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(q=args[0], k=args[1]), with_kwargs=True
    )
    with torch.no_grad():
        model([picture(64, 96)])
    handle.remove()
    weight, bias = layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias
    width = weight.shape[1]
    q, k = (
        (x[0] @ w.T + b).unflatten(1, (8, -1)).transpose(0, 1)
        for x, w, b in zip((seen["q"], seen["k"]), weight.split(width)[:2], bias.split(width)[:2], strict=True)
    )
    expected = (q @ k.transpose(1, 2) / (width // 8) ** 0.5).softmax(-1).mean(0).view(4, 6, 4, 6)
    torch.testing.assert_close(torch.from_numpy(found[0].encoder), expected.detach(), rtol=1e-4, atol=1e-6)


def test_looking_changes_neither_what_is_found_nor_what_comes_later(recorded):
    model, _ = recorded
    inputs = picture(64, 96)
    with torch.no_grad():
        [before] = model([inputs])
        with recording(model.detr.transformer) as found:
            [meanwhile] = model([inputs])
        [later] = model([inputs])
    for output in (meanwhile, later):
        boxes = output["instances"].pred_boxes.tensor
        torch.testing.assert_close(boxes, before["instances"].pred_boxes.tensor, rtol=1e-4, atol=1e-3)
    assert len(found) == 1


def test_a_point_belongs_to_the_cell_that_it_lies_in():
    encoder = np.arange(2 * 3 * 2 * 3.0).reshape(2, 3, 2, 3)
    attention = Attention(encoder, np.zeros((1, 2, 3)))
    assert (attention.from_point(0.0, 0.0) == encoder[0, 0]).all()
    assert (attention.from_point(0.5, 0.49) == encoder[0, 1]).all()
    assert (attention.from_point(1.0, 1.0) == encoder[1, 2]).all()


@pytest.mark.parametrize("number", [0, 1, 7])
def test_a_picture_of_it_is_written_whatever_was_found(recorded, tmp_path, number):
    _, found = recorded
    objects = Detections(np.tile([5.0, 5, 40, 50], (number, 1)), np.zeros(number, int), np.full(number, 0.9))
    figure = draw_attention(np.zeros((64, 96, 3), np.uint8), found[0], objects, range(number), ["cat"])
    save_png(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 1600
