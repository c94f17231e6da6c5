import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from d2_detr.structures.detections import Detections
from d2_detr.visualization.predictions import (
    COLOURS,
    MASK_OPACITY,
    Comparison,
    View,
    _inside,
    _painted,
    draw_objects,
    palette_of,
    save_comparisons,
    save_objects,
)

BOX = np.array([[10.0, 20.0, 60.0, 70.0]])
NAMES = ("cat", "dog")


def comparison(scores):
    picture = np.full((100, 80, 3), 255, np.uint8)
    predicted = Detections(np.repeat(BOX, len(scores), 0), np.zeros(len(scores), int), np.array(scores))
    truth = Detections(BOX, np.array([1]))
    return Comparison("cat.jpg", picture, [View("truth", truth, NAMES), View("found", predicted, NAMES)])


def test_the_threshold_keeps_what_scores_as_much_or_more():
    objects = comparison([0.2, 0.7, 0.9]).views[1].objects.above(0.7)
    assert objects.scores.tolist() == [0.7, 0.9] and objects.boxes_xyxy.shape == (2, 4)
    assert objects.classes.tolist() == [0, 0] and objects.masks is None


def test_truth_and_prediction_are_drawn_beside_each_other_in_the_colours_of_their_classes(tmp_path):
    save_comparisons([comparison([0.9])], tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        left, right = (
            {"#{:02x}{:02x}{:02x}".format(*rgb) for _, rgb in image.convert("RGB").crop(half).getcolors(1 << 24)}
            for half in ((0, 0, image.width // 2, image.height), (image.width // 2, 0, image.width, image.height))
        )
    assert COLOURS[1] in left and COLOURS[0] not in left
    assert COLOURS[0] in right and COLOURS[1] not in right


def test_a_class_has_one_colour_in_all_views_whatever_its_number(tmp_path, monkeypatch):
    picture, seen = np.zeros((100, 80, 3), np.uint8), []
    monkeypatch.setattr(Axes, "text", lambda axes, x, y, name, bbox, **style: seen.append((name, bbox["facecolor"])))
    views = [
        View("truth", Detections(BOX, np.array([1])), NAMES),
        View("one", Detections(BOX, np.array([0])), ("dog",)),
        View("other", Detections(BOX, np.array([2])), ("person", "dog", "cat")),
    ]
    save_comparisons([Comparison("cat.jpg", picture, views)], tmp_path / "out.png")
    assert seen == [("dog", COLOURS[1]), ("dog", COLOURS[1]), ("cat", COLOURS[0])]


@pytest.mark.parametrize(("names", "seen"), [(NAMES, ["dog", "cat 0.90"]), (("cat",), ["0.90"])])
def test_the_name_of_the_only_class_is_left_out_where_pictures_are_compared(tmp_path, monkeypatch, names, seen):
    texts = []
    monkeypatch.setattr(Axes, "text", lambda axes, x, y, name, **style: texts.append(name))
    truth, found = Detections(BOX, np.array([len(names) - 1])), Detections(BOX, np.array([0]), np.array([0.9]))
    views = [View("truth", truth, names), View("found", found, names)]
    save_comparisons([Comparison("cat.jpg", np.zeros((100, 80, 3), np.uint8), views)], tmp_path / "out.png")
    assert texts == seen


def test_pictures_without_objects_and_incomplete_rows_are_drawn(tmp_path):
    save_comparisons([comparison([])] * 4, tmp_path / "out.png", columns=3)
    assert (tmp_path / "out.png").is_file()


def with_masks():
    """A large and a small object of two classes; the small one lies inside the large, and has no box."""
    masks = np.zeros((2, 100, 80), bool)
    masks[0, 20:70, 10:60] = True
    masks[1, 30:50, 20:40] = True
    return Detections(np.array([*BOX, [np.nan] * 4]), np.array([0, 1]), np.array([0.9, 0.8]), masks)


def test_the_threshold_keeps_the_masks_of_what_scores_above_it():
    kept = with_masks().above(0.85)
    assert kept.masks.shape == (1, 100, 80) and kept.masks.sum() == 2500


def test_masks_are_painted_over_the_picture_the_smaller_on_top_with_white_outlines():
    picture = np.zeros((100, 80, 3), np.uint8)
    painted = _painted(picture, with_masks().masks, COLOURS[:2])
    colours = [(np.array(to_rgb(COLOURS[i])) * 255 * MASK_OPACITY).astype(np.uint8).tolist() for i in range(2)]
    assert painted[25, 15].tolist() == colours[0] and painted[40, 30].tolist() == colours[1]
    assert painted[20, 30].tolist() == painted[30, 30].tolist() == [255] * 3
    assert not painted[80:].any() and not picture.any()


def test_what_has_no_box_is_named_inside_its_mask(tmp_path):
    objects = with_masks()
    assert _inside(objects.masks[1])[0] in range(28, 32) and _inside(objects.masks[1])[1] in range(38, 42)
    figure = Figure()
    axes = figure.subplots()
    draw_objects(axes, np.zeros((100, 80, 3), np.uint8), objects, ["sky", "cat"], palette_of(["sky", "cat"]))
    assert [text.get_text() for text in axes.texts] == ["sky 0.90", "cat 0.80"]
    assert len(axes.patches) == 1, "one box"
    assert axes.texts[0].get_zorder() > axes.texts[1].get_zorder() >= 3, "the surer name on top"
    assert axes.texts[1].get_position() == _inside(objects.masks[1])


def test_boxes_are_drawn_around_the_pixels_that_they_hold():
    figure = Figure(figsize=(1, 1))
    axes = figure.add_axes((0, 0, 1, 1))
    objects = Detections(np.array([[0.0, 0, 2, 3]]), np.array([0]), np.array([0.9]))
    draw_objects(axes, np.zeros((4, 4, 3), np.uint8), objects, ["cat"], palette_of(["cat"]))
    assert axes.images[0].get_extent() == [*axes.get_xlim(), *axes.get_ylim()] == [0, 4, 4, 0]
    assert axes.texts[0].get_verticalalignment() == "top", "inside, where the border is near"


@pytest.mark.parametrize(
    ("size_hw", "drawn_wh"), [((480, 731), (731, 480)), ((128, 127), (635, 640)), ((37, 643), (643, 37))]
)
def test_a_picture_with_objects_has_its_own_size_and_small_ones_are_enlarged(tmp_path, size_hw, drawn_wh):
    nothing = Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
    picture = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    save_objects(picture, nothing, [], tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as drawing:
        assert drawing.size == drawn_wh
        if drawn_wh == size_hw[::-1]:
            assert np.array_equal(np.asarray(drawing.convert("RGB")), picture), "not a pixel is changed"
