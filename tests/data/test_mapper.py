"""Dataset dicts become inputs of Detr: images, instances, crops."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from d2_detr import DetrDatasetMapper
from d2_detr.config import load_config
from d2_detr.data.augmentation import RandomCrop
from d2_detr.structures.masks import bit_masks, to_rle
from d2_detr.utils.errors import InputError

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


# ---- images


@pytest.mark.parametrize("is_train", [True, False], ids=["training", "inference"])
def test_the_image_is_a_uint8_tensor_with_channels_first(dataset_dict, is_train):
    image = mapper(is_train=is_train)(dataset_dict)["image"]
    assert image.dtype == torch.uint8 and image.is_contiguous()
    np.testing.assert_array_equal(image.numpy(), PIXELS.transpose(2, 0, 1))


@pytest.mark.parametrize(("image_format", "order"), [("RGB", [0, 1, 2]), ("BGR", [2, 1, 0])])
def test_channels_are_in_the_order_of_the_config(dataset_dict, image_format, order):
    opts = f"MODEL.DEVICE cpu INPUT.FORMAT {image_format} INPUT.MIN_SIZE_TEST {HEIGHT}".split()
    image = DetrDatasetMapper(load_config("detr_256_6_6_torchvision.yaml", opts), is_train=False)(dataset_dict)["image"]
    np.testing.assert_array_equal(image.numpy(), PIXELS.transpose(2, 0, 1)[order])


def test_size_mismatch_is_an_error(dataset_dict):
    with pytest.raises(InputError, match=r"a\.png: the image is 60 x 40 pixels, its annotation says .* height 41"):
        mapper()(dataset_dict | {"height": HEIGHT + 1})


# ---- instances


def test_integer_boxes_are_resized_without_truncation(dataset_dict):
    dataset_dict["annotations"] = [annotation([11, 5, 20, 10])]
    result = mapper(T.ResizeShortestEdge((50,), sample_style="choice"))(dataset_dict)  # 60 x 40 to 75 x 50
    assert boxes(result) == [[13.75, 6.25, 38.75, 18.75]]


def test_instances_have_boxes_xyxy_classes_and_size(dataset_dict):
    instances = mapper()(dataset_dict)["instances"]
    assert instances.image_size == (HEIGHT, WIDTH)
    assert instances.gt_boxes.tensor.tolist() == [[10, 5, 30, 15], [30, 20, 45, 40]]
    assert instances.gt_classes.tolist() == [2, 0] and instances.gt_classes.dtype == torch.int64
    assert set(instances.get_fields()) == {"gt_boxes", "gt_classes"}, "boxes only"


def test_instances_have_masks_if_requested(dataset_dict):
    instances = mapper(mask_format="bitmask")(dataset_dict)["instances"]
    assert instances.gt_masks.tensor.shape == (2, HEIGHT, WIDTH)
    assert instances.gt_masks.tensor.sum((1, 2)).tolist() == [200, 300]


@pytest.mark.parametrize("is_train", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("rles", [(0, 1), (1,)], ids=["rles", "polygons_and_rles"])
def test_rles_become_masks_in_polygon_format(dataset_dict, rles, is_train):
    flip = T.RandomFlip(prob=1.0)
    options = {"mask_format": "polygon", "is_train": is_train, "with_instances": True}
    expected = bit_masks(mapper(flip, **options)(dataset_dict)["instances"])
    for i in rles:
        entry = dataset_dict["annotations"][i]
        entry["segmentation"] = to_rle(entry["segmentation"], (HEIGHT, WIDTH))
    masks = bit_masks(mapper(flip, **options)(dataset_dict)["instances"])
    assert masks.sum((1, 2)).tolist() == [200, 300] and torch.equal(masks, expected)


def test_an_object_without_a_mask_is_an_error_with_the_image(dataset_dict):
    del dataset_dict["annotations"][1]["segmentation"]
    with pytest.raises(InputError, match=r"a\.png: an object has no mask .*annotate it"):
        mapper(mask_format="polygon")(dataset_dict)


def test_image_and_boxes_are_augmented_alike(dataset_dict):
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


def test_boxes_are_clipped_to_the_crop_or_dropped(monkeypatch, dataset_dict):
    crop = RandomCrop(1, 1)
    intervals = iter([(0, 18), (20, 40)])  # rows 0..17, columns 20..59
    monkeypatch.setattr(crop, "_interval", lambda side: next(intervals))
    result = mapper(crop)(dataset_dict)
    assert boxes(result) == [[0, 5, 10, 15]]
    np.testing.assert_array_equal(result["image"].numpy(), PIXELS[:18, 20:].transpose(2, 0, 1))


@pytest.mark.parametrize("mask_format", [None, "polygon", "bitmask"])
@pytest.mark.parametrize("annotations", [[], [annotation([1, 1, 9, 9], iscrowd=1)]], ids=["none", "crowd_only"])
def test_an_image_without_objects_has_0_instances(dataset_dict, annotations, mask_format):
    instances = mapper(mask_format=mask_format)(dataset_dict | {"annotations": annotations})["instances"]
    assert len(instances) == 0
    assert instances.gt_boxes.tensor.shape == (0, 4) and instances.gt_classes.dtype == torch.int64


@pytest.mark.parametrize("is_train", [True, False], ids=["training", "inference"])
def test_dict_without_annotations_has_no_instances(dataset_dict, is_train):
    del dataset_dict["annotations"]
    assert "instances" not in mapper(is_train=is_train)(dataset_dict)


def test_inference_keeps_identifiers_but_not_annotations(dataset_dict):
    result = mapper(T.ResizeShortestEdge(2 * HEIGHT, 10_000), is_train=False)(dataset_dict)
    assert set(result) == {"file_name", "image_id", "height", "width", "image"}
    assert (result["image_id"], result["height"], result["width"]) == (7, HEIGHT, WIDTH), "of the original image"


# ---- cropping


def num_crops(mapper, dataset_dict, number=200):
    np.random.seed(0)
    return sum(mapper(dataset_dict)["image"].shape[1] == 8 for _ in range(number))


def test_half_of_the_training_images_are_cropped(dataset_dict):
    assert 80 < num_crops(mapper(crop=[RandomCrop(8, 8)]), dataset_dict) < 120


@pytest.mark.parametrize(
    ("is_train", "crop"), [(True, None), (False, [RandomCrop(8, 8)])], ids=["training_without_crop", "inference"]
)
def test_inference_and_disabled_crops_do_not_crop(dataset_dict, is_train, crop):
    assert num_crops(mapper(is_train=is_train, crop=crop), dataset_dict, 20) == 0


@pytest.mark.parametrize("mask_format", [None, "polygon", "bitmask"])
@pytest.mark.parametrize("is_train", [True, False], ids=["training", "inference"])
def test_the_dataset_dict_is_not_modified(dataset_dict, is_train, mask_format):
    before = copy.deepcopy(dataset_dict)
    mapper(T.RandomFlip(prob=1.0), is_train=is_train, mask_format=mask_format)(dataset_dict)
    assert dataset_dict == before
