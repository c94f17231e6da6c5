"""Masks, boxes and labels on images."""

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw

from d2_detr.structures.detections import Detections
from d2_detr.visualization import drawing
from d2_detr.visualization.colors import PALETTE, class_colors, text_color
from d2_detr.visualization.drawing import MASK_OPACITY, draw_detections, mask_layer, resize_detections
from d2_detr.visualization.text import font_for, shorten

WIDTH, HEIGHT = 80, 100
BOX = [10.0, 20.0, 60.0, 70.0]
NO_BOX = [np.nan] * 4
COLORS = class_colors(["cat", "dog"])


def rgb(color):
    return ImageColor.getrgb(color)


@pytest.fixture
def labels(monkeypatch):
    """Record the drawn labels: text, position and background."""
    drawn = []

    def draw_label(draw, text, color, position, font_size, *, is_centered):
        drawn.append((text, position, color))

    monkeypatch.setattr(drawing, "_draw_label", draw_label)
    return drawn


def draw(detections, size_wh=(WIDTH, HEIGHT), **kwargs):
    image = Image.new("RGB", size_wh)
    draw_detections(image, detections, ["cat", "dog"], COLORS, **kwargs)
    return np.asarray(image)


def with_masks():
    """Return a large object and, inside it, a small one without a box."""
    masks = np.zeros((2, HEIGHT, WIDTH), bool)
    masks[0, 20:70, 10:60] = True
    masks[1, 30:50, 20:40] = True
    return Detections(np.array([BOX, NO_BOX]), np.array([0, 1]), np.array([0.9, 0.8]), masks)


def test_smaller_masks_are_on_top_with_white_outlines():
    layer = np.asarray(mask_layer(with_masks().masks, PALETTE[:2]))
    alpha = round(255 * MASK_OPACITY)
    assert layer[25, 15].tolist() == [*rgb(PALETTE[0]), alpha] and layer[40, 30].tolist() == [*rgb(PALETTE[1]), alpha]
    assert layer[20, 30].tolist() == layer[30, 30].tolist() == [255] * 4
    assert not layer[80:].any()


def test_masks_have_no_outline_at_the_edges_of_the_image():
    layer = np.asarray(mask_layer(np.ones((1, HEIGHT, WIDTH), bool), PALETTE[:1]))
    assert (layer == [*rgb(PALETTE[0]), round(255 * MASK_OPACITY)]).all()
    assert not np.asarray(mask_layer(np.zeros((1, HEIGHT, WIDTH), bool), PALETTE[:1])).any()


def test_boxes_frame_their_pixels_in_the_color_of_the_class(labels):
    image = draw(Detections(np.array([BOX]), np.array([1]), np.array([0.9])))
    frame = [9, 19, 60, 70]  # two pixels wide, one of them on each side of the edge
    x0, y0, x1, y1 = frame
    on_frame = np.zeros((HEIGHT, WIDTH), bool)
    on_frame[y0 : y1 + 1, x0 : x1 + 1] = True
    on_frame[y0 + 2 : y1 - 1, x0 + 2 : x1 - 1] = False
    assert (image[on_frame] == rgb(COLORS["dog"])).all() and not image[~on_frame].any()
    assert labels == [("dog 0.90", (9, 19), COLORS["dog"])]


@pytest.mark.parametrize(
    "box", [[-5, -5, 100, 200], [79, 99, 80, 100], [30, 30, 30, 30], [200, 200, 300, 300]],
    ids=["larger", "corner", "empty", "outside"],
)  # fmt: skip
def test_boxes_at_and_beyond_the_edges_can_be_drawn(box):
    draw(Detections(np.array([box], float), np.array([0]), np.array([0.9])))


def test_objects_without_a_box_are_labeled_inside_their_mask(labels):
    draw(with_masks())
    assert [text for text, *_ in labels] == ["dog 0.80", "cat 0.90"], "higher scores are drawn last"
    (x, y) = labels[0][1]
    assert 28 <= x < 32 and 38 <= y < 42


@pytest.mark.parametrize(
    ("named", "scores", "texts"),
    [(True, [0.9], ["cat 0.90"]), (True, None, ["cat"]), (False, [0.9], ["0.90"]), (False, None, [])],
)
def test_names_and_scores_in_labels_are_optional(labels, named, scores, texts):
    draw(Detections(np.array([BOX]), np.array([0]), None if scores is None else np.array(scores)), named=named)
    assert [text for text, *_ in labels if text] == texts


@pytest.mark.parametrize("position", [(-20, -20), (70, 95), (0, 50), (78, 0)])
@pytest.mark.parametrize("text", ["cat 0.90", "a name that is much wider than the image 0.90"])
@pytest.mark.parametrize("is_centered", [False, True])
def test_labels_stay_inside_the_image(position, text, is_centered):
    image = Image.new("RGB", (WIDTH, HEIGHT))
    drawing._draw_label(ImageDraw.Draw(image), text, "#ffffff", position, 12, is_centered=is_centered)
    rows, columns = np.asarray(image)[:, :, 0].any(1), np.asarray(image)[:, :, 0].any(0)
    height = sum(font_for(text, 12).getmetrics())
    assert rows.sum() >= height and (columns.sum() > 40 or len(text) > 8), "no part is cut off"


def test_labels_grow_with_the_image():
    heights = []
    for side in (400, 4000):
        image = np.asarray(draw(Detections(np.array([[10, side / 2, 20, side / 2 + 5]]), np.array([0])), (side, side)))
        heights.append(image.any(2).any(1).sum())
    assert heights[1] > 4 * heights[0]


def test_text_is_black_on_light_and_white_on_dark_colors():
    assert (text_color("#ffff00"), text_color("#000080")) == ("black", "white")


def test_objects_are_resized_with_the_image():
    resized = resize_detections(with_masks(), (WIDTH, HEIGHT), (WIDTH * 2, HEIGHT * 3))
    assert resized.boxes_xyxy[0].tolist() == [20, 60, 120, 210] and np.isnan(resized.boxes_xyxy[1]).all()
    assert resized.masks.shape == (2, HEIGHT * 3, WIDTH * 2) and resized.masks[0].sum() == 6 * 2500


# ---- text


def test_long_names_are_shortened_in_the_middle():
    font = font_for("x", 12)
    name = "IMG_20240518_" + "long_" * 30 + "0001.jpg, 640 x 480"
    shortened = shorten(name, font, 200)
    assert font.getlength(shortened) <= 200 and "…" in shortened
    assert shortened.startswith("IMG_2024") and shortened.endswith("640 x 480")
    assert shorten("cat.jpg", font, 200) == "cat.jpg"


def test_letters_of_many_alphabets_are_drawn(monkeypatch):
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [])
    missing = bytes(font_for("\U0010ffff", 20).getmask("\U0010ffff"))
    for text in ("Größe", "кошка", "γάτα", "قطة", "חתול", "կատու", "kočka ⅓ ♥"):
        font = font_for(text, 20)
        assert all(bytes(font.getmask(letter)) != missing for letter in text.replace(" ", "")), text


def test_an_installed_font_is_used_for_letters_that_dejavu_lacks(monkeypatch):
    from d2_detr.visualization import text as module

    has_glyphs = module._has_glyphs
    monkeypatch.setattr(module, "_has_glyphs", lambda path, letters: "Mono" in path or has_glyphs(path, letters))
    installed = [module._dejavu_sans(), module._dejavu_sans().replace("Sans", "SansMono")]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: installed)
    module._font_file.cache_clear()
    assert font_for("犬", 20).path == installed[1]
    module._font_file.cache_clear()
