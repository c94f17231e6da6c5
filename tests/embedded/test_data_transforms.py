import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

import d2_detr  # noqa: F401  (selects the detectron2 to import)

from detectron2.data import transforms as T


def random_image(*shape):
    return (np.random.RandomState(0).rand(*shape) * 255).astype(np.uint8)


@pytest.mark.parametrize("interp", [None, Image.NEAREST, Image.BILINEAR, Image.BICUBIC])
@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 3)])
def test_uint8_is_resized_by_pillow(shape, interp):
    img = random_image(*shape)
    expected = Image.fromarray(img).resize((5, 13), Image.BILINEAR if interp is None else interp)
    assert np.array_equal(T.ResizeTransform(6, 9, 13, 5, interp).apply_image(img), np.asarray(expected))


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_resizing_keeps_channels_and_accepts_mirrored_arrays(channels):
    img = random_image(6, 9, *channels)[:, ::-1]
    resized = T.ResizeTransform(6, 9, 12, 18).apply_image(img)
    assert resized.shape == (12, 18, *channels)
    assert np.array_equal(resized, T.ResizeTransform(6, 9, 12, 18).apply_image(img.copy()))


@pytest.mark.parametrize("interp, mode", [(None, "bilinear"), (Image.NEAREST, "nearest"), (Image.BICUBIC, "bicubic")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_floats_are_resized_by_torch(channels, dtype, interp, mode):
    img = (random_image(6, 9, *channels) / 255).astype(dtype)[:, ::-1]
    resized = T.ResizeTransform(6, 9, 13, 5, interp).apply_image(img)
    planes = torch.from_numpy(img.copy()).reshape(6, 9, -1).permute(2, 0, 1)[None]
    expected = F.interpolate(planes, (13, 5), mode=mode)[0].permute(1, 2, 0).reshape(13, 5, *channels)
    assert resized.dtype == dtype and np.array_equal(resized, expected.numpy())


def test_labels_are_resized_by_nearest_neighbor():
    labels = np.array([[0, 7], [7, 0]], dtype=np.uint8)
    assert (
        T.ResizeTransform(2, 2, 4, 4).apply_segmentation(labels).tolist() == labels.repeat(2, 0).repeat(2, 1).tolist()
    )


def test_boxes_and_points_are_scaled_by_the_ratio_of_the_sizes():
    resize = T.ResizeTransform(10, 20, 5, 60)
    assert resize.apply_box(np.array([[1.0, 2, 3, 4]])).tolist() == [[3, 1, 9, 2]]
    assert resize.apply_coords(np.array([[1.0, 2.0]])).tolist() == [[3, 1]]


@pytest.mark.parametrize(
    "size_hw, short, longest, expected",
    [
        ((480, 640), 800, 1333, (800, 1067)),  # 640 * 800 / 480 = 1066.7
        ((640, 480), 800, 1333, (1067, 800)),
        ((300, 900), 800, 1333, (444, 1333)),  # 2400 is too long: 800 * 1333 / 2400 = 444.3
        ((100, 100), 50, 1333, (50, 50)),
        ((3, 4), 2, 100, (2, 3)),  # 2.67
        ((4, 5), 2, 100, (2, 3)),  # 2.5 is rounded up
    ],
)
def test_the_longest_edge_limits_the_shortest(size_hw, short, longest, expected):
    assert T.ResizeShortestEdge.get_output_shape(*size_hw, short, longest) == expected
    resize = T.ResizeShortestEdge([short], longest, "choice").get_transform(np.zeros(size_hw))
    assert (resize.new_h, resize.new_w) == expected


@given(st.tuples(st.integers(1, 2000), st.integers(1, 2000)), st.integers(1, 900), st.integers(1, 1500))
def test_no_edge_exceeds_the_longest(size_hw, short, longest):
    assert max(T.ResizeShortestEdge.get_output_shape(*size_hw, short, longest)) <= longest


def test_a_flip_and_a_size_each_draw_one_random_number():
    img = np.zeros((10, 20))
    np.random.seed(0)  # uniform: .549, .715, .603, .545
    flips = [T.RandomFlip(0.6).get_transform(img) for _ in range(4)]
    assert [isinstance(f, T.HFlipTransform) for f in flips] == [True, False, False, True]
    for style, draw in (("choice", np.random.choice), ("range", lambda lengths: np.random.randint(5, 10))):
        np.random.seed(0)
        expected = [draw([5, 9]) for _ in range(5)]
        np.random.seed(0)
        resize = T.ResizeShortestEdge([5, 9], sample_style=style)
        assert [resize.get_transform(img).new_h for _ in range(5)] == expected


def test_a_range_includes_both_ends():
    resize = T.ResizeShortestEdge((5, 6))
    assert {resize.get_transform(np.zeros((10, 20))).new_h for _ in range(50)} == {5, 6}


def test_length_zero_keeps_the_size():
    assert isinstance(T.ResizeShortestEdge(0).get_transform(np.zeros((1, 1))), T.NoOpTransform)


@pytest.mark.parametrize(
    "flip, corner", [(T.RandomFlip(1.0), (0, -1)), (T.RandomFlip(1.0, horizontal=False, vertical=True), (-1, 0))]
)
def test_flips_mirror_in_the_named_direction(flip, corner):
    assert flip(T.AugInput(random_image(4, 6))).apply_image(random_image(4, 6))[0, 0] == random_image(4, 6)[corner]


@pytest.mark.parametrize(
    "build",
    [
        lambda: T.RandomFlip(horizontal=True, vertical=True),
        lambda: T.RandomFlip(horizontal=False),
        lambda: T.ResizeShortestEdge([1, 2, 3], sample_style="range"),
        lambda: T.ResizeShortestEdge([1, 2], sample_style="typo"),
    ],
)
def test_contradictory_arguments_are_refused(build):
    with pytest.raises((ValueError, AssertionError)):
        build()


def test_image_boxes_and_labels_are_transformed_together():
    aug_input = T.AugInput(random_image(4, 6, 3), boxes=np.array([[0.0, 0, 1, 2]]), sem_seg=random_image(4, 6))
    tfms = T.AugmentationList([T.ResizeShortestEdge(8), T.RandomFlip(1.0)])(aug_input)
    assert aug_input.image.shape == (8, 12, 3) and aug_input.sem_seg.shape == (8, 12)
    assert aug_input.boxes.tolist() == [[10, 0, 12, 4]]
    assert tfms.apply_box(np.array([[0.0, 0, 1, 2]])).tolist() == [[10, 0, 12, 4]]


def test_transforms_and_augmentations_can_be_mixed():
    aug_input = T.AugInput(random_image(4, 6))
    crop = T.CropTransform(1, 0, 3, 4)
    tfms = aug_input.apply_augmentations([T.RandomFlip(1.0), crop, T.AugmentationList([T.ResizeShortestEdge(8)])])
    assert isinstance(tfms, T.TransformList) and isinstance(tfms[0], T.HFlipTransform) and tfms[1] is crop
    assert aug_input.image.shape == (11, 8)
    assert np.array_equal(tfms.apply_image(random_image(4, 6)), aug_input.image)


def test_augmentations_get_the_output_of_the_previous_one():
    class Spy(T.Augmentation):
        def get_transform(self, image, boxes):
            self.seen = (image.shape, boxes.tolist())
            return T.NoOpTransform()

    spy = Spy()
    T.AugmentationList([T.ResizeShortestEdge(8), spy])(T.AugInput(random_image(4, 6), boxes=np.array([[1.0, 1, 2, 2]])))
    assert spy.seen == ((8, 12), [[2, 2, 4, 4]])


def test_an_augmentation_may_ignore_the_input():
    class Blind(T.Augmentation):
        def get_transform(self):
            return T.HFlipTransform(6)

    aug_input = T.AugInput(random_image(4, 6))
    Blind()(aug_input)
    assert np.array_equal(aug_input.image, random_image(4, 6)[:, ::-1])


def test_an_augmentation_with_unknown_arguments_fails():
    class Curious(T.Augmentation):
        def get_transform(self, image, depth):
            return T.NoOpTransform()

    with pytest.raises(AttributeError, match="depth"):
        Curious()(T.AugInput(random_image(4, 6)))


def test_an_augmentation_can_store_its_arguments():
    class Zoom(T.Augmentation):
        def __init__(self, factor, interp=2):
            super().__init__()
            self._init(locals())

    assert vars(Zoom(3)) == {"factor": 3, "interp": 2} and repr(Zoom(3)) == "Zoom(factor=3)"


def test_repr_shows_arguments_other_than_defaults():
    flip = T.RandomFlip(prob=0.25)
    assert repr(flip) == "RandomFlip(prob=0.25)" and repr(T.RandomFlip()) == "RandomFlip()"
    resize = T.ResizeShortestEdge([480, 512], 1333, "choice")
    expected = "ResizeShortestEdge(short_edge_length=[480, 512], max_size=1333, sample_style='choice')"
    assert repr(resize) == expected
    assert repr(T.AugmentationList([flip, resize])) == f"AugmentationList[{flip}, {resize}]"
