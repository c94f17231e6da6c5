"""Masks as ground truth: from polygons and RLEs, through the augmentation."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from d2_detr import DetrDatasetMapper
from d2_detr.data.augmentation import RandomCrop
from d2_detr.data.validation.masks import check_masks, mask_problem
from d2_detr.structures.masks import bit_masks
from d2_detr.utils.errors import InputError

from detectron2.data import transforms as T
from detectron2.structures import BoxMode, Instances

HEIGHT, WIDTH = 120, 160


def polygon(cx, cy, rx, ry, points=24):
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], 1)


def annotation(outline, to_rle):
    low, high = outline.min(0), outline.max(0)
    segmentation = [outline.flatten().tolist()]
    if to_rle:
        [segmentation] = mask_util.frPyObjects(segmentation, HEIGHT, WIDTH)
    box = [*low.tolist(), *high.tolist()]
    return {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 0, "segmentation": segmentation}


@st.composite
def ellipses(draw):
    """Inside the picture and of some size."""
    rx, ry = draw(st.floats(15, 50)), draw(st.floats(15, 50))
    return polygon(draw(st.floats(rx, WIDTH - rx)), draw(st.floats(ry, HEIGHT - ry)), rx, ry)


@pytest.mark.parametrize(
    ("to_rle", "mask_format"), [(False, "polygon"), (False, "bitmask"), (True, "bitmask")], ids=str
)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(outline=ellipses(), seed=st.integers(0, 1000))
def test_the_mask_of_an_object_goes_where_the_object_goes(tmp_path, to_rle, mask_format, outline, seed):
    """The object is painted white: after flip, resize, crop, resize its mask is what is white, to 3 pixels."""
    [rle] = mask_util.frPyObjects([outline.flatten().tolist()], HEIGHT, WIDTH)
    Image.fromarray(mask_util.decode(rle) * 255).convert("RGB").save(tmp_path / "a.png")
    augmentations = [
        T.RandomFlip(), T.ResizeShortestEdge((100, 140), sample_style="range"), RandomCrop(60, 100),
        T.ResizeShortestEdge((90, 130), sample_style="range"),
    ]  # fmt: skip
    mapper = DetrDatasetMapper(
        is_train=True, augmentations=augmentations, crop_augmentations=None, image_format="RGB", mask_format=mask_format
    )
    np.random.seed(seed)
    record = {"file_name": str(tmp_path / "a.png"), "height": HEIGHT, "width": WIDTH}
    result = mapper(record | {"annotations": [annotation(outline, to_rle)]})
    white = result["image"][0] > 127
    masks = bit_masks(result["instances"])
    mask = masks.any(0)  # of no object, if it is outside of the crop
    if white.sum() < 100 and mask.sum() < 100:
        return  # of an object that the crop hardly touches
    assert not (mask & ~wider(white)).any() and not (white & ~wider(mask)).any()


def wider(mask, pixels=3):
    return F.max_pool2d(mask[None].float(), 2 * pixels + 1, stride=1, padding=pixels)[0] > 0


def test_polygons_are_cut_at_the_border_without_any_other_library(tmp_path, monkeypatch):
    """fvcore cuts polygons with shapely, which is not among the requirements."""
    monkeypatch.setitem(__import__("sys").modules, "shapely", None)
    monkeypatch.setitem(__import__("sys").modules, "shapely.geometry", None)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    mapper = DetrDatasetMapper(
        is_train=True, augmentations=[RandomCrop(40, 40)], crop_augmentations=None, image_format="RGB",
        mask_format="polygon",
    )  # fmt: skip
    whole = polygon(WIDTH / 2, HEIGHT / 2, 3 * WIDTH, 3 * HEIGHT)  # far outside on all sides
    record = {"file_name": str(tmp_path / "a.png"), "height": HEIGHT, "width": WIDTH}
    instances = mapper(record | {"annotations": [annotation(whole, to_rle=False)]})["instances"]
    assert bit_masks(instances).shape == (1, 40, 40) and bit_masks(instances).all()


def test_instances_without_objects_may_lack_masks_and_others_may_not():
    instances = Instances((4, 5))
    instances.gt_classes = torch.zeros(0, dtype=torch.int64)
    assert bit_masks(instances).shape == (0, 4, 5)
    instances = Instances((4, 5))
    instances.gt_classes = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(InputError, match="no gt_masks"):
        bit_masks(instances)


# ---- what cannot be trained on


RLE = {"size": [4, 4], "counts": b"04"}


@pytest.mark.parametrize(
    ("entry", "mask_format", "problem"),
    [
        ({"segmentation": [[0, 0, 1, 0, 1, 1]]}, "polygon", ""),
        ({"segmentation": [[0, 0, 1, 0, 1, 1]]}, "bitmask", ""),
        ({"segmentation": RLE}, "bitmask", ""),
        ({"segmentation": RLE}, "polygon", "set INPUT.MASK_FORMAT bitmask"),
        ({}, "bitmask", "without a mask"),
        ({"segmentation": []}, "polygon", "without a mask"),
        ({"iscrowd": 1}, "polygon", ""),
    ],
    ids=["polygon", "polygon_as_bitmask", "rle", "rle_as_polygon", "none", "empty", "crowd"],
)
def test_what_gives_no_mask_has_a_remedy(entry, mask_format, problem):
    found = mask_problem(entry, mask_format)
    assert (problem in found) if problem else found == ""


def test_objects_without_masks_are_told_with_picture_and_number_before_a_training():
    records = [
        {"file_name": "a.jpg", "annotations": [{"segmentation": [[0, 0, 1, 0, 1, 1]]}]},
        {"file_name": "b.jpg", "annotations": [{}, {"segmentation": []}]},
    ]
    check_masks({"mine": records[:1]}, "polygon")
    with pytest.raises(InputError, match=r"^b\.jpg: an object without a mask.*\(and 1 more objects\)$"):
        check_masks({"mine": records}, "polygon")
