"""Drawings of predictions, and of several views side by side."""

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw

from d2_detr.structures.detections import Detections
from d2_detr.utils.errors import InputError
from d2_detr.visualization import predictions as module
from d2_detr.visualization.colors import PALETTE
from d2_detr.visualization.predictions import (
    MARGIN,
    VIEW_SIDE,
    Comparison,
    View,
    resize_comparison,
    save_comparisons,
    save_drawing,
)

BOX = np.array([[10.0, 20.0, 60.0, 70.0]])
NAMES = ("cat", "dog")


def comparison(scores, title="cat.jpg"):
    image = np.full((100, 80, 3), 255, np.uint8)
    predictions = Detections(np.repeat(BOX, len(scores), 0), np.zeros(len(scores), int), np.array(scores))
    ground_truth = Detections(BOX, np.array([1]))
    return Comparison(title, image, [View("ground truth", ground_truth, NAMES), View("predicted", predictions, NAMES)])


def image_colors(image):
    return {color for _, color in image.convert("RGB").getcolors(1 << 24)}


@pytest.fixture
def drawn(monkeypatch):
    """Record the arguments of each drawing."""
    calls = []

    def draw_detections(image, detections, class_names, colors, *, named=True):
        calls.append((image, [(class_names[label], colors[class_names[label]]) for label in detections.classes], named))

    monkeypatch.setattr(module, "draw_detections", draw_detections)
    return calls


def test_views_are_side_by_side_in_the_class_colors(tmp_path):
    save_comparisons([comparison([0.9])], tmp_path / "out.png")
    cat, dog = (ImageColor.getrgb(color) for color in PALETTE[:2])
    with Image.open(tmp_path / "out.png") as image:
        assert image.width == 2 * VIEW_SIDE
        left, right = (image_colors(image.crop((x, 0, x + VIEW_SIDE, image.height))) for x in (0, VIEW_SIDE))
    assert dog in left and cat not in left
    assert cat in right and dog not in right


def test_a_class_has_one_color_in_all_views(tmp_path, drawn):
    views = [
        View("ground truth", Detections(BOX, np.array([1])), NAMES),
        View("one", Detections(BOX, np.array([0])), ("dog",)),
        View("other", Detections(BOX, np.array([2])), ("person", "dog", "cat")),
    ]
    save_comparisons([Comparison("cat.jpg", np.zeros((100, 80, 3), np.uint8), views)], tmp_path / "out.png")
    assert [objects for _, objects, _ in drawn] == [[("dog", PALETTE[1])], [("dog", PALETTE[1])], [("cat", PALETTE[0])]]


@pytest.mark.parametrize(("names", "is_named"), [(NAMES, True), (("cat",), False)])
def test_a_single_class_is_not_named_in_comparisons(tmp_path, drawn, names, is_named):
    view = View("ground truth", Detections(BOX, np.array([len(names) - 1])), names)
    save_comparisons([Comparison("cat.jpg", np.zeros((100, 80, 3), np.uint8), [view])], tmp_path / "out.png")
    assert [named for *_, named in drawn] == [is_named]


def test_large_images_are_downscaled_before_drawing(tmp_path, drawn):
    image = np.zeros((1000, 2000, 3), np.uint8)
    large = Comparison("cat.jpg", image, [View("ground truth", Detections(20 * BOX, np.array([0])), NAMES)])
    save_comparisons([large], tmp_path / "out.png")
    [(small, *_)] = drawn
    assert small.size == (VIEW_SIDE - 2 * MARGIN, (VIEW_SIDE - 2 * MARGIN) // 2)
    assert resize_comparison(large, 500).views[0].detections.boxes_xyxy.tolist() == (5 * BOX).tolist()


def test_empty_images_and_incomplete_rows_are_drawn(tmp_path):
    save_comparisons([comparison([])] * 4, tmp_path / "out.png", columns=3)
    with Image.open(tmp_path / "out.png") as image:
        assert image.width == 6 * VIEW_SIDE


def test_long_titles_do_not_overlap(tmp_path, monkeypatch):
    texts = []
    text = ImageDraw.ImageDraw.text

    def record(self, position, content, fill, font, **kwargs):
        texts.append((content, font.getlength(content)))
        return text(self, position, content, fill, font, **kwargs)

    monkeypatch.setattr(module.ImageDraw.ImageDraw, "text", record)
    monkeypatch.setattr(module, "draw_detections", lambda *args, **kwargs: None)
    save_comparisons([comparison([0.9], title="name_" * 60 + "end.jpg")] * 2, tmp_path / "out.png", columns=2)
    assert len(texts) == 6 and max(width for _, width in texts) <= 2 * VIEW_SIDE - 2 * MARGIN
    assert texts[0][0].startswith("name_") and texts[0][0].endswith("_end.jpg") and "…" in texts[0][0]


@pytest.mark.parametrize(
    ("size_hw", "drawn_wh"), [((480, 731), (731, 480)), ((128, 127), (635, 640)), ((37, 643), (643, 37))]
)
def test_drawings_have_the_size_of_the_image_or_are_enlarged(tmp_path, size_hw, drawn_wh):
    empty = Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
    pixels = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    save_drawing(pixels, empty, [], tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == drawn_wh
        if drawn_wh == size_hw[::-1]:
            assert np.array_equal(np.asarray(image.convert("RGB")), pixels), "no pixel is changed"


def test_objects_are_enlarged_with_their_image(tmp_path):
    detections = Detections(np.array([[10.0, 10, 20, 20]]), np.array([0]), np.array([0.9]))
    save_drawing(np.zeros((64, 64, 3), np.uint8), detections, ["cat"], tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert image.getpixel((100, 150)) == image.getpixel((200, 150)) == ImageColor.getrgb(PALETTE[0])


def test_unsupported_file_formats_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"out\.pdf: .* use one of \.png, \.jpg, \.jpeg"):
        save_drawing(np.zeros((8, 8, 3), np.uint8), Detections(BOX, np.array([0])), ["cat"], tmp_path / "out.pdf")
