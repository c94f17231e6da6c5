"""From a dataset dict to the input of Detr."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from d2_detr import DetrDatasetMapper
from d2_detr.data.augmentation import RandomCrop
from d2_detr.utils.errors import InputError
from d2_detr.workflows.setup import load_config

from detectron2.data import transforms as T
from detectron2.structures import BoxMode

HEIGHT, WIDTH = 40, 60
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def dataset_dict(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    return {
        "file_name": str(tmp_path / "a.png"),
        "image_id": 7,
        "height": HEIGHT,
        "width": WIDTH,
        "annotations": [
            annotation([10, 5, 20, 10], category_id=2),
            annotation([30, 20, 15, 20], category_id=0),
        ],
    }


def annotation(box_xywh, category_id=1, **more):
    x, y, w, h = box_xywh
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    result = {"bbox": [x, y, w, h], "bbox_mode": BoxMode.XYWH_ABS, "segmentation": [polygon], "iscrowd": 0}
    return result | {"category_id": category_id} | more


def mapper(*augmentations, is_train=True, crop=None, **more):
    return DetrDatasetMapper(
        is_train=is_train, augmentations=list(augmentations), crop_augmentations=crop, image_format="RGB", **more
    )


def boxes(result):
    return result["instances"].gt_boxes.tensor.tolist()


# ---- pictures


@pytest.mark.parametrize("is_train", [True, False], ids=["training", "inference"])
def test_the_image_is_the_picture_as_a_uint8_tensor_with_channels_first(dataset_dict, is_train):
    image = mapper(is_train=is_train)(dataset_dict)["image"]
    assert image.dtype == torch.uint8 and image.is_contiguous()
    np.testing.assert_array_equal(image.numpy(), PIXELS.transpose(2, 0, 1))


@pytest.mark.parametrize(("image_format", "order"), [("RGB", [0, 1, 2]), ("BGR", [2, 1, 0])])
def test_channels_come_in_the_order_of_the_config(dataset_dict, image_format, order):
    opts = f"MODEL.DEVICE cpu INPUT.FORMAT {image_format} INPUT.MIN_SIZE_TEST {HEIGHT}".split()
    image = DetrDatasetMapper(load_config("detr_256_6_6_torchvision.yaml", opts), is_train=False)(dataset_dict)["image"]
    np.testing.assert_array_equal(image.numpy(), PIXELS.transpose(2, 0, 1)[order])


def test_a_picture_of_another_size_than_its_entry_says_is_an_error(dataset_dict):
    with pytest.raises(InputError, match=r"a\.png: the picture is 60 x 40 pixels, its annotation says .* height 41"):
        mapper()(dataset_dict | {"height": HEIGHT + 1})


# ---- objects


def test_boxes_given_as_integers_are_resized_without_cutting_off_fractions(dataset_dict):
    dataset_dict["annotations"] = [annotation([11, 5, 20, 10])]
    result = mapper(T.ResizeShortestEdge((50,), sample_style="choice"))(dataset_dict)  # 60 x 40 to 75 x 50
    assert boxes(result) == [[13.75, 6.25, 38.75, 18.75]]


def test_instances_hold_boxes_in_pixels_xyxy_and_classes_and_the_size(dataset_dict):
    instances = mapper()(dataset_dict)["instances"]
    assert instances.image_size == (HEIGHT, WIDTH)
    assert instances.gt_boxes.tensor.tolist() == [[10, 5, 30, 15], [30, 20, 45, 40]]
    assert instances.gt_classes.tolist() == [2, 0] and instances.gt_classes.dtype == torch.int64
    assert set(instances.get_fields()) == {"gt_boxes", "gt_classes"}, "boxes only"


def test_masks_come_when_they_are_asked_for(dataset_dict):
    instances = mapper(mask_format="bitmask")(dataset_dict)["instances"]
    assert instances.gt_masks.tensor.shape == (2, HEIGHT, WIDTH)
    assert instances.gt_masks.tensor.sum((1, 2)).tolist() == [200, 300]


def test_picture_and_boxes_are_augmented_alike(dataset_dict):
    result = mapper(T.RandomFlip(prob=1.0), T.ResizeShortestEdge(2 * HEIGHT, 10_000))(dataset_dict)
    assert result["image"].shape == (3, 2 * HEIGHT, 2 * WIDTH)
    assert result["instances"].image_size == (2 * HEIGHT, 2 * WIDTH)
    assert boxes(result) == [[60, 10, 100, 30], [30, 40, 60, 80]]


def test_crowds_and_boxes_without_area_are_dropped(dataset_dict):
    dataset_dict["annotations"] = [
        annotation([1, 1, 9, 9], iscrowd=1),
        annotation([5, 5, 0, 9]),
        annotation([10, 5, 20, 10], category_id=2),
        annotation([5, 5, 9, 0]),
        annotation([WIDTH + 5, 5, 9, 9]),
    ]
    result = mapper()(dataset_dict)
    assert boxes(result) == [[10, 5, 30, 15]] and result["instances"].gt_classes.tolist() == [2]


def test_a_box_outside_the_crop_is_dropped_and_one_across_its_edge_is_cut(monkeypatch, dataset_dict):
    crop = RandomCrop(1, 1)
    intervals = iter([(0, 18), (20, 40)])  # rows 0..17, columns 20..59
    monkeypatch.setattr(crop, "_interval", lambda side: next(intervals))
    result = mapper(crop)(dataset_dict)
    assert boxes(result) == [[0, 5, 10, 15]]
    np.testing.assert_array_equal(result["image"].numpy(), PIXELS[:18, 20:].transpose(2, 0, 1))


@pytest.mark.parametrize("mask_format", [None, "polygon", "bitmask"])
@pytest.mark.parametrize("annotations", [[], [annotation([1, 1, 9, 9], iscrowd=1)]], ids=["none", "only_a_crowd"])
def test_a_picture_without_objects_has_0_instances(dataset_dict, annotations, mask_format):
    instances = mapper(mask_format=mask_format)(dataset_dict | {"annotations": annotations})["instances"]
    assert len(instances) == 0
    assert instances.gt_boxes.tensor.shape == (0, 4) and instances.gt_classes.dtype == torch.int64


@pytest.mark.parametrize("is_train", [True, False], ids=["training", "inference"])
def test_a_picture_without_annotations_has_no_instances(dataset_dict, is_train):
    del dataset_dict["annotations"]
    assert "instances" not in mapper(is_train=is_train)(dataset_dict)


def test_inference_keeps_no_annotations_but_what_says_which_picture_it_is(dataset_dict):
    result = mapper(T.ResizeShortestEdge(2 * HEIGHT, 10_000), is_train=False)(dataset_dict)
    assert set(result) == {"file_name", "image_id", "height", "width", "image"}
    assert (result["image_id"], result["height"], result["width"]) == (7, HEIGHT, WIDTH), "of the original picture"


# ---- cropping, and what stays


def takes_crop(mapper, dataset_dict, number=200):
    np.random.seed(0)
    return sum(mapper(dataset_dict)["image"].shape[1] == 8 for _ in range(number))


def test_half_of_the_training_pictures_take_the_crop(dataset_dict):
    assert 80 < takes_crop(mapper(crop=[RandomCrop(8, 8)]), dataset_dict) < 120


@pytest.mark.parametrize(
    ("is_train", "crop"), [(True, None), (False, [RandomCrop(8, 8)])], ids=["training_without_crop", "inference"]
)
def test_otherwise_none_does(dataset_dict, is_train, crop):
    assert takes_crop(mapper(is_train=is_train, crop=crop), dataset_dict, 20) == 0


@pytest.mark.parametrize("mask_format", [None, "polygon", "bitmask"])
@pytest.mark.parametrize("is_train", [True, False], ids=["training", "inference"])
def test_the_dataset_dict_is_not_changed(dataset_dict, is_train, mask_format):
    before = copy.deepcopy(dataset_dict)
    mapper(T.RandomFlip(prob=1.0), is_train=is_train, mask_format=mask_format)(dataset_dict)
    assert dataset_dict == before
