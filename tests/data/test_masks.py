"""Ground-truth masks: polygons and RLEs in augmentation, training and evaluation."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from d2_detr import DetrDatasetMapper
from d2_detr.config import load_config
from d2_detr.data.augmentation import RandomCrop
from d2_detr.engine.trainer import Trainer
from d2_detr.structures.masks import bit_masks
from d2_detr.utils.errors import InputError
from d2_detr.workflows.prepare_run import prepare_run
from tests import shapes

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
    """Large ellipses inside the image."""
    rx, ry = draw(st.floats(15, 50)), draw(st.floats(15, 50))
    return polygon(draw(st.floats(rx, WIDTH - rx)), draw(st.floats(ry, HEIGHT - ry)), rx, ry)


@pytest.mark.parametrize(
    ("to_rle", "mask_format"), [(False, "polygon"), (False, "bitmask"), (True, "bitmask")], ids=str
)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(outline=ellipses(), seed=st.integers(0, 1000))
def test_masks_are_augmented_with_the_image(tmp_path, to_rle, mask_format, outline, seed):
    """The object is painted white: after flip, resize, crop, resize its mask covers it with a tolerance of 3 pixels."""
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
    mask = masks.any(0)  # there is no object if it is outside the crop
    if white.sum() < 400 and mask.sum() < 400:
        return  # if the crop touches only the edge of the object, rounding moves the mask by many pixels
    assert not (mask & ~dilated(white)).any() and not (white & ~dilated(mask)).any()


def dilated(mask, pixels=3):
    return F.max_pool2d(mask[None].float(), 2 * pixels + 1, stride=1, padding=pixels)[0] > 0


def test_polygons_are_clipped_at_the_border_without_shapely(tmp_path, monkeypatch):
    """fvcore clips polygons with shapely, which is not a requirement."""
    monkeypatch.setitem(__import__("sys").modules, "shapely", None)
    monkeypatch.setitem(__import__("sys").modules, "shapely.geometry", None)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    mapper = DetrDatasetMapper(
        is_train=True, augmentations=[RandomCrop(40, 40)], crop_augmentations=None, image_format="RGB",
        mask_format="polygon",
    )  # fmt: skip
    surrounding = polygon(WIDTH / 2, HEIGHT / 2, 3 * WIDTH, 3 * HEIGHT)  # beyond the image on all sides
    record = {"file_name": str(tmp_path / "a.png"), "height": HEIGHT, "width": WIDTH}
    instances = mapper(record | {"annotations": [annotation(surrounding, to_rle=False)]})["instances"]
    assert bit_masks(instances).shape == (1, 40, 40) and bit_masks(instances).all()


def test_only_empty_instances_may_lack_masks():
    instances = Instances((4, 5))
    instances.gt_classes = torch.zeros(0, dtype=torch.int64)
    assert bit_masks(instances).shape == (0, 4, 5)
    instances = Instances((4, 5))
    instances.gt_classes = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(InputError, match="no gt_masks"):
        bit_masks(instances)


def rles(coco, which):
    """Convert the polygons of some annotations of every image."""
    for image in coco["images"]:
        annotations = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        for entry in annotations[which]:
            rle = mask_util.merge(mask_util.frPyObjects(entry["segmentation"], image["height"], image["width"]))
            entry["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
    return coco


@pytest.mark.parametrize(
    ("train", "val"),
    [(slice(0), slice(None)), (slice(None), slice(0)), (slice(1), slice(1))],
    ids=["rles_in_val", "rles_in_train", "both_in_an_image"],
)
def test_polygons_and_rles_can_be_mixed(tmp_path, monkeypatch, tiny_opts, train, val):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    root = shapes.draw_shapes(tmp_path / "coco", num_images=(4, 2))
    for split, which in (("train", train), ("val", val)):
        shapes.write(rles(shapes.read(root, split), which), root, split)
    opts = "MODEL.MASK_ON True MODEL.DETR.HIDDEN_DIM 128 MODEL.DETR.NHEADS 8 SOLVER.MAX_ITER 1 SOLVER.STEPS ()".split()
    cfg = load_config("detr_compact_balloon.yaml", [*tiny_opts, *opts], str(root))
    assert cfg.INPUT.MASK_FORMAT == "polygon", "the default"
    results = Trainer(*prepare_run(cfg)).train()
    assert "segm" in results and results["validation"]["loss_mask"] > 0


def test_images_of_any_shape_can_be_trained_on_and_evaluated(tmp_path, monkeypatch, tiny_opts):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    root = shapes.draw_shapes(tmp_path / "coco", num_images=(4, 4))
    for split in ("train", "val"):
        coco = shapes.read(root, split)
        for entry, (width, height) in zip(coco["images"], [(20_000, 1), (1, 900), (1000, 2), (1, 1)], strict=True):
            Image.new("RGB", (width, height)).save(root / f"{split}2017" / entry["file_name"])
            entry |= {"width": width, "height": height}
            for a in coco["annotations"]:
                if a["image_id"] == entry["id"]:
                    a |= {"bbox": [0, 0, width, height], "area": width * height}
                    a["segmentation"] = [[0, 0, width, 0, width, height, 0, height]]
        shapes.write(coco, root, split)
    opts = "MODEL.MASK_ON True MODEL.DETR.HIDDEN_DIM 128 MODEL.DETR.NHEADS 8 SOLVER.MAX_ITER 2 SOLVER.STEPS ()".split()
    cfg = load_config("detr_compact_balloon.yaml", [*tiny_opts, *opts, "INPUT.CROP.ENABLED", "True"], str(root))
    results = Trainer(*prepare_run(cfg)).train()
    assert "segm" in results and np.isfinite(results["validation"]["total_loss"])
