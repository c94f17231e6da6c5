"""Drawings of attention."""

import numpy as np
import pytest
from PIL import Image

from d2_detr.structures.attention import Attention
from d2_detr.structures.detections import Detections
from d2_detr.visualization.attention import draw_attention
from d2_detr.visualization.figures import save_png


@pytest.fixture
def attention():
    rng = np.random.default_rng(0)
    return Attention(rng.random((4, 6, 4, 6), np.float32), rng.random((15, 4, 6), np.float32))


def objects(number):
    return Detections(np.tile([5.0, 5, 40, 50], (number, 1)), np.zeros(number, int), np.full(number, 0.9))


@pytest.mark.parametrize("number", [0, 1, 7])
def test_attention_is_drawn_for_any_number_of_objects(attention, tmp_path, number):
    figure = draw_attention(np.zeros((64, 96, 3), np.uint8), attention, objects(number), range(number), ["cat"])
    save_png(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 1600


def test_the_brightness_of_a_cell_is_the_root_of_its_weight(attention):
    image = np.zeros((64, 96, 3), np.uint8)
    figure = draw_attention(image, attention, objects(1), [7], ["cat"], points=[(0.9, 0.1)])
    _, from_point, *_ = figure.axes[:5]
    from_query = figure.axes[5]
    for axes, weights in ((from_point, attention.encoder[0, 5]), (from_query, attention.decoder[7])):
        _, drawn = axes.images
        np.testing.assert_allclose(drawn.get_array()[8::16, 8::16], np.sqrt(weights), rtol=1e-5)
