"""DETR's augmentation: sizes and positions of the crop, boxes in a crop, and what a config builds."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chisquare

from d2_detr import DetrDatasetMapper
from d2_detr.config import load_config
from d2_detr.data.augmentation import SIZES_BEFORE_CROP, RandomCrop, build_augmentations
from d2_detr.utils.errors import InputError

from detectron2.data import transforms as T
from detectron2.data.detection_utils import transform_instance_annotations
from detectron2.structures import BoxMode


def image_of_coordinates(height, width):
    """Every pixel holds its own row and column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, 0 * rows], 2).astype(np.uint8)


def draws(crop, height, width, number=4000):
    np.random.seed(0)
    image = np.empty((height, width, 3), np.uint8)
    return [(t.y0, t.h, t.x0, t.w) for t in (crop.get_transform(image) for _ in range(number))]


def assert_uniform(values, expected):
    """Assert that exactly the expected values occur, equally often (chi-square test with p > 0.001; seeded)."""
    counts = Counter(values)
    assert set(counts) == set(expected)
    assert len(counts) == 1 or chisquare(list(counts.values())).pvalue > 1e-3


# ---- the crop


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(0, 40))
def test_the_crop_is_inside_the_image_and_in_its_size_range(height, width, smallest, more):
    t = RandomCrop(smallest, smallest + more).get_transform(np.empty((height, width, 3), np.uint8))
    for start, length, side in ((t.y0, t.h, height), (t.x0, t.w, width)):
        assert min(side, smallest) <= length <= min(side, smallest + more)
        assert 0 <= start <= side - length


@pytest.mark.parametrize(
    ("side", "lengths"),
    [(20, range(5, 9)), (8, range(5, 9)), (7, range(5, 8)), (5, [5]), (4, [4]), (1, [1])],
    ids=["larger", "equal_to_the_largest", "between", "equal_to_the_smallest", "smaller", "one_pixel"],
)
def test_every_length_that_fits_is_equally_likely(side, lengths):
    assert_uniform([h for _, h, _, _ in draws(RandomCrop(5, 8), side, 20)], lengths)
    assert_uniform([w for _, h, _, w in draws(RandomCrop(5, 8), 20, side)], lengths)


def test_the_two_sides_are_drawn_independently():
    assert_uniform(
        [(h, w) for _, h, _, w in draws(RandomCrop(5, 8), 20, 20)], [(h, w) for h in range(5, 9) for w in range(5, 9)]
    )


def test_every_position_is_equally_likely():
    drawn = draws(RandomCrop(6, 6), 9, 8)
    assert_uniform([(y, x) for y, _, x, _ in drawn], [(y, x) for y in range(4) for x in range(3)])


@pytest.mark.parametrize("sizes", [(0, 5), (-1, 5), (6, 5), (0, 0)], ids=str)
def test_an_invalid_size_range_is_an_error(sizes):
    with pytest.raises(InputError, match=f"crop sizes {sizes[0]}..{sizes[1]}"):
        RandomCrop(*sizes)


@pytest.fixture
def crop(monkeypatch):
    """A crop of rows 20..69 and columns 10..69."""
    crop = RandomCrop(1, 1)
    intervals = iter([(20, 50), (10, 60)])
    monkeypatch.setattr(crop, "_interval", lambda side: next(intervals))
    return crop


def test_crop_keeps_the_chosen_pixels(crop):
    image = image_of_coordinates(100, 120)
    cropped = crop.get_transform(image).apply_image(image)
    np.testing.assert_array_equal(cropped, image[20:70, 10:70])


@pytest.mark.parametrize(
    ("box_xyxy", "cropped_xyxy"),
    [
        ([30, 30, 50, 60], [20, 10, 40, 40]),
        ([0, 25, 40, 45], [0, 5, 30, 25]),
        ([60, 10, 90, 90], [50, 0, 60, 50]),
        ([0, 0, 120, 100], [0, 0, 60, 50]),
        ([80, 80, 110, 95], [60, 50, 60, 50]),
    ],
    ids=["inside", "clipped_on_the_left", "clipped_on_three_sides", "around", "outside"],
)
def test_a_box_is_moved_and_clipped_to_the_crop(crop, box_xyxy, cropped_xyxy):
    transform = crop.get_transform(image_of_coordinates(100, 120))
    annotation = {"bbox": box_xyxy, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    result = transform_instance_annotations(annotation, T.TransformList([transform]), (50, 60))
    assert list(result["bbox"]) == cropped_xyxy


@given(
    st.tuples(*[st.integers(0, 80)] * 2, *[st.integers(1, 100)] * 2), st.integers(0, 60), st.integers(0, 40),
    st.integers(20, 60), st.integers(20, 60), st.booleans(),
)  # fmt: skip
def test_transformed_box_equals_the_one_computed_by_hand(box, x0, y0, width, height, flip):
    """An image of 200 x 100 is resized to 300 x 150, cropped, and resized by a factor of 3."""
    left, top, right, bottom = (float(x) for x in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    steps = [T.HFlipTransform(200)] if flip else []
    steps += [T.ResizeTransform(100, 200, 150, 300), T.CropTransform(x0, y0, width, height)]
    steps += [T.ResizeTransform(height, width, 3 * height, 3 * width)]
    annotation = {"bbox": [left, top, right, bottom], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    result = transform_instance_annotations(annotation, T.TransformList(steps), (3 * height, 3 * width))
    left, right = (200 - right, 200 - left) if flip else (left, right)
    expected = [(1.5 * x - shift) * 3 for x, shift in ((left, x0), (top, y0), (right, x0), (bottom, y0))]
    np.testing.assert_allclose(result["bbox"], np.clip(expected, 0, [3 * width, 3 * height] * 2), atol=1e-9)


# ---- augmentations of a config


def config(*opts):
    return load_config("detr_256_6_6_torchvision.yaml", ["MODEL.DEVICE", "cpu", *opts])


def names(augmentations):
    return [type(augmentation).__name__ for augmentation in augmentations]


def test_training_flips_resizes_and_optionally_crops():
    plain, cropped = build_augmentations(config(), is_train=True)
    assert names(plain) == ["RandomFlip", "ResizeShortestEdge"]
    assert names(cropped) == ["RandomFlip", "ResizeShortestEdge", "RandomCrop", "ResizeShortestEdge"]
    flip, before, crop, after = cropped
    assert flip.horizontal and not flip.vertical
    assert tuple(before.short_edge_length) == SIZES_BEFORE_CROP == (400, 500, 600)
    assert before.sample_style == "choice" and before.max_size > 10_000
    assert (crop.min_size, crop.max_size) == (384, 600)
    for resize in (after, plain[1]):
        assert tuple(resize.short_edge_length) == tuple(range(480, 801, 32)) and resize.max_size == 1333
        assert resize.sample_style == "choice"


def test_the_mapper_augments_with_the_distribution_of_detr(monkeypatch, tmp_path):
    """Half of the images are cropped, half are flipped, and every scale is equally likely in both halves."""
    Image.fromarray(image_of_coordinates(48, 60)).save(tmp_path / "a.png")
    seen = []
    augment = T.AugmentationList.__call__

    def watch(self, aug_input):
        seen.append(augment(self, aug_input).transforms)
        return T.TransformList(seen[-1])

    monkeypatch.setattr(T.AugmentationList, "__call__", watch)
    mapper = DetrDatasetMapper(config(), is_train=True)
    np.random.seed(1)
    images = [mapper({"file_name": str(tmp_path / "a.png")})["image"] for _ in range(440)]

    crops = [[t for t in transforms if isinstance(t, T.CropTransform)] for transforms in seen]
    assert_uniform([len(found) for found in crops], [0, 1])
    assert_uniform([any(isinstance(t, T.HFlipTransform) for t in transforms) for transforms in seen], [False, True])
    resizes = [[t for t in transforms if isinstance(t, T.ResizeTransform)] for transforms in seen]
    assert_uniform([found[0].new_h for found in resizes if len(found) == 2], SIZES_BEFORE_CROP)
    for cropped in (False, True):
        shortest = [min(image.shape[1:]) for image, crop in zip(images, crops, strict=True) if bool(crop) == cropped]
        assert_uniform(shortest, range(480, 801, 32))
    sides = [(t.h, t.w) for crop in crops for t in crop]
    assert all(384 <= side <= 600 for size in sides for side in size) and len(set(sides)) > 0.9 * len(sides)


@pytest.mark.parametrize(
    ("opts", "expected"),
    [
        ([], ["ResizeShortestEdge"]),
        (["INPUT.RANDOM_FLIP", "vertical"], ["ResizeShortestEdge"]),
    ],
    ids=["default", "flip"],
)
def test_inference_only_resizes(opts, expected):
    augmentations, cropped = build_augmentations(config(*opts), is_train=False)
    assert names(augmentations) == expected and cropped is None
    assert tuple(np.unique(augmentations[0].short_edge_length)) == (800,) and augmentations[0].max_size == 1333


def test_without_crop_there_is_one_list_of_augmentations():
    augmentations, cropped = build_augmentations(config("INPUT.CROP.ENABLED", "False"), is_train=True)
    assert names(augmentations) == ["RandomFlip", "ResizeShortestEdge"] and cropped is None


@pytest.mark.parametrize("choice", ["none", "horizontal", "vertical"])
def test_the_flip_is_that_of_the_config(choice):
    for augmentations in build_augmentations(config("INPUT.RANDOM_FLIP", choice), is_train=True):
        flips = [(a.horizontal, a.vertical) for a in augmentations if isinstance(a, T.RandomFlip)]
        assert flips == {"none": [], "horizontal": [(True, False)], "vertical": [(False, True)]}[choice]


@pytest.mark.parametrize("crop_type", ["relative", "relative_range", "absolute", "nonsense"])
def test_another_type_of_crop_is_an_error(crop_type):
    with pytest.raises(InputError, match=rf"INPUT\.CROP\.TYPE '{crop_type}'.*absolute_range.*ENABLED False"):
        build_augmentations(config("INPUT.CROP.TYPE", crop_type), is_train=True)


def test_the_type_of_a_disabled_crop_is_ignored():
    cfg = config("INPUT.CROP.TYPE", "relative", "INPUT.CROP.ENABLED", "False")
    assert build_augmentations(cfg, is_train=True)[1] is None


@pytest.mark.parametrize("size_hw", [(1, 4000), (4000, 1), (2, 1000), (1, 1)], ids=str)
@pytest.mark.parametrize("is_train", [True, False])
def test_images_of_any_shape_keep_a_pixel_and_stay_small(size_hw, is_train):
    for augmentations in filter(None, build_augmentations(config(), is_train)):
        aug_input = T.AugInput(np.zeros((*size_hw, 3), np.uint8))
        T.AugmentationList(augmentations)(aug_input)
        assert min(aug_input.image.shape) > 0 and max(aug_input.image.shape) <= 1333


def test_the_resize_before_the_crop_is_bounded():
    _, (_, before, *_) = build_augmentations(config(), is_train=True)
    transform = before.get_transform(np.broadcast_to(np.uint8(0), (1, 100_000, 3)))
    assert (transform.new_h, transform.new_w) == (1, 20_000)
