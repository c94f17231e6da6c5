"""Any annotation file is read, or refused by an InputError; what is accepted can be trained on and is in range."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from d2_detr.data.annotations import ground_truth_detections
from d2_detr.data.augmentation import RandomCrop
from d2_detr.data.datasets import load_dataset
from d2_detr.data.datasets.layouts import find_layout
from d2_detr.data.formats import coco_records
from d2_detr.data.formats.coco import parse_coco
from d2_detr.data.formats.coco_records import encode_coco
from d2_detr.data.formats.panoptic_from_instances import make_panoptic
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.data.splits import write_split
from d2_detr.data.validation.validate import validate_data
from d2_detr.structures.masks import bit_masks
from d2_detr.structures.records import decode_record
from d2_detr.utils.files import read_json
from tests.fuzz.strategies import LONG, SHORT, damaged, mutated, only_input_errors

from detectron2.data import transforms as T

SIDE = 64
POLYGON = [10, 20, 40, 20, 40, 60, 10, 60]
RLE = {"size": [SIDE, SIDE], "counts": [0, 500, SIDE * SIDE - 500]}
COMPRESSED = {"size": [SIDE, SIDE], "counts": "0Pb0P^3"}


def annotation(**changes):
    base = {"id": 5, "image_id": 1, "category_id": 3, "bbox": [10.0, 20.0, 30.0, 40.0], "area": 1200, "iscrowd": 0}
    return base | {"segmentation": [POLYGON]} | changes


def image(number):
    return {"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE}


COCO = {
    "info": {"description": "fuzz", "version": 1},
    "images": [image(1), image(2)],
    "annotations": [
        annotation(),
        annotation(id=6, image_id=2, category_id=9, segmentation=[[1, 1, 30, 1, 30, 30], POLYGON]),
        annotation(id=7, bbox=[0, 0, 20, 30], segmentation=RLE, area=500.5, iscrowd=1),
        annotation(id=8, bbox=[0.5, 0, 9, 64], segmentation=COMPRESSED, attributes={"occluded": False}),
    ],
    "categories": [{"id": 9, "name": "dog", "supercategory": "animal"}, {"id": 3, "name": "cat"}],
}
ROBOFLOW = COCO | {
    "categories": [{"id": 0, "name": "pets", "supercategory": "none"}]
    + [category | {"supercategory": "pets"} for category in COCO["categories"]]
}


def via_region(name, **fields):
    return {"shape_attributes": {"name": name, **fields}, "region_attributes": {"kind": "cat", "more": ""}}


VIA_1 = {
    "1.png9": {
        "filename": "1.png",
        "size": 9,
        "regions": {
            "0": via_region("polygon", all_points_x=[1, 30, 30, 1], all_points_y=[2, 2, 40, 40]),
            "1": via_region("ellipse", cx=30, cy=20.5, rx=10, ry=5, theta=0.4),
        },
    },
    "2.png9": {
        "filename": "2.png",
        "regions": {
            "0": via_region("rect", x=5, y=6, width=30, height=20) | {"region_attributes": {"kind": {"dog": True}}},
            "1": via_region("circle", cx=30, cy=20, r=10),
        },
    },
}
VIA_PROJECT = {
    "_via_settings": {"project": {"name": "pets"}},
    "_via_attributes": {"region": {"kind": {"type": "dropdown", "options": {"cat": "", "dog": ""}}}},
    "_via_img_metadata": {key: entry | {"regions": list(entry["regions"].values())} for key, entry in VIA_1.items()},
}


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    monkeypatch.setenv("D2_DETR_MAX_PIXELS", "4000000")
    monkeypatch.setattr(coco_records, "PIECE_SIZE", 200)
    monkeypatch.setattr(coco_records, "num_cores", lambda: 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a dataset, with images for every layout but without annotations."""
    root = tmp_path_factory.mktemp("fuzz") / "dataset"
    patch = pytest.MonkeyPatch()
    patch.setenv("D2_DETR_CACHE", str(root.parent / "cache"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    for name in ("train", "val", "train2017", "val2017"):
        (root / name).mkdir(parents=True)
        for i, array in enumerate(pixels, 1):
            Image.fromarray(array).save(root / name / f"{i}.png")
    (root / "annotations").mkdir()
    yield root
    patch.undo()


def mapper(with_masks):
    steps = [T.RandomFlip(), T.ResizeShortestEdge((32, 48), 100), RandomCrop(20, 40)]
    mask_format = "polygon" if with_masks else None
    return DetrDatasetMapper(
        is_train=True, augmentations=steps, crop_augmentations=None, image_format="RGB", mask_format=mask_format
    )


def check_record(record, num_classes):
    """Check what a training and an evaluation get from an accepted record."""
    width, height = record["width"], record["height"]
    with only_input_errors():
        detections = ground_truth_detections(record, masks=True)
        assert detections.masks.shape == (len(detections.classes), height, width)
        boxes = detections.boxes_xyxy[~np.isnan(detections.boxes_xyxy).any(1)]
        assert np.isfinite(boxes).all() and (boxes[:, :2] <= boxes[:, 2:]).all()
        assert (boxes[:, :2] < [width, height]).all() and (boxes[:, 2:] > 0).all()
        assert (detections.classes >= 0).all() and (detections.classes < num_classes).all()
    for with_masks in (True, False):
        # An object may lack its mask. Without masks, a training must not end after the validation.
        with only_input_errors() if with_masks else contextlib.nullcontext():
            result = mapper(with_masks)(record)
            instances, size_hw = result["instances"], result["image"].shape[1:]
            boxes = instances.gt_boxes.tensor.numpy()
            assert np.isfinite(boxes).all() and (boxes >= 0).all() and (boxes <= np.tile(size_hw[::-1], 2)).all()
            assert (boxes[:, :2] < boxes[:, 2:]).all()
            if with_masks:
                assert bit_masks(instances).shape == (len(instances), *size_hw)
            classes = instances.gt_classes.numpy()
            assert (classes >= 0).all() and (classes < num_classes).all()


def check_dataset(folder, name="custom_train"):
    """Return the number of images that are accepted."""
    num_accepted = 0
    with only_input_errors():
        dataset = load_dataset(name, folder, evaluated=name == "custom_train")
        validate_data([dataset], [dataset], num_queries=10, with_masks=False)
        for record in dataset.records:
            assert Path(record["file_name"]).resolve().is_relative_to(folder.resolve())
            check_record(record, len(dataset.label_map))
            num_accepted += 1
        if name == "custom_train":
            written = json.loads(dataset.json_file.read_text())
            assert all(entry["area"] > 0 and entry["iscrowd"] in (0, 1) for entry in written["annotations"])
    return num_accepted


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# ---- COCO


def check_coco(folder, content):
    path = write(folder / "annotations" / "custom_train.json", content)
    try:
        num_accepted = check_dataset(folder)
        with only_input_errors():
            encoded = encode_coco(path, folder / "train2017", folder)
            if encoded:
                coco = parse_coco(read_json(path), folder / "train2017", source=path, root=folder)
                ids = {category_id: i for i, category_id in enumerate(coco.categories)}
                records = coco.dataset_dicts(folder / "train2017", ids, folder)
                decoded = [decode_record(record) for record in encoded.records()]
                assert [len(r["annotations"]) for r in decoded] == [len(r["annotations"]) for r in records]
                assert encoded.warning == coco.warning
        with only_input_errors():
            make_panoptic(path, folder / "train2017")
        with only_input_errors():
            output = folder.parent / "split"
            coco = parse_coco(read_json(path), folder / "train2017", source=path)
            write_split(coco, folder / "train2017", output)
    finally:
        path.unlink()
        for written in (folder / "annotations" / "custom_train_panoptic", folder.parent / "split"):
            shutil.rmtree(written, ignore_errors=True)
        (folder / "annotations" / "custom_train_panoptic.json").unlink(missing_ok=True)
    assert {path.name for path in folder.parent.iterdir()} <= {"dataset", "cache"}, "nothing is written elsewhere"
    return num_accepted


def test_coco_files_without_damage_are_accepted(folder):
    assert check_coco(folder, COCO) == 2


@SHORT
@given(mutated(COCO))
def test_mutated_coco_files_are_read_or_refused(folder, content):
    check_coco(folder, content)


@pytest.mark.slow
@LONG
@given(mutated(COCO))
def test_thousands_of_mutated_coco_files(folder, content):
    check_coco(folder, content)


@SHORT
@given(damaged(json.dumps(COCO).encode()))
def test_damaged_coco_files_are_read_or_refused(folder, data):
    check_coco(folder, data.decode("latin-1"))


@pytest.mark.slow
@LONG
@given(damaged(json.dumps(COCO).encode()))
def test_thousands_of_damaged_coco_files(folder, data):
    check_coco(folder, data.decode("latin-1"))


# ---- Roboflow and VIA


def check_layout(folder, name, content):
    path = write(folder / "train" / name, content)
    try:
        with only_input_errors():
            assert find_layout(folder)
        return check_dataset(folder)
    finally:
        path.unlink()


LAYOUTS = {
    "roboflow": ("_annotations.coco.json", ROBOFLOW),
    "via_1": ("via_region_data.json", VIA_1),
    "via_project": ("via_region_data.json", VIA_PROJECT),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_of_other_layouts_without_damage_are_accepted(folder, layout):
    assert check_layout(folder, *LAYOUTS[layout]) == 2


@pytest.mark.parametrize("layout", LAYOUTS)
@SHORT
@given(data=st.data())
def test_mutated_files_of_other_layouts_are_read_or_refused(folder, layout, data):
    name, content = LAYOUTS[layout]
    check_layout(folder, name, data.draw(mutated(content)))


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@LONG
@given(data=st.data())
def test_thousands_of_mutated_files_of_other_layouts(folder, layout, data):
    name, content = LAYOUTS[layout]
    check_layout(folder, name, data.draw(mutated(content)))


# ---- panoptic


@pytest.fixture(scope="module")
def panoptic(folder):
    """The panoptic JSON file of the training set, its content, and the PNGs by path."""
    path = write(folder / "annotations" / "custom_train.json", COCO)
    json_file = make_panoptic(path)
    pngs = {png: png.read_bytes() for png in json_file.with_suffix("").iterdir()}
    content = json.loads(json_file.read_text())
    shutil.rmtree(json_file.with_suffix(""))
    json_file.unlink()
    path.unlink()
    return json_file, content, pngs


def check_panoptic(folder, panoptic, content, data=None):
    json_file, _, pngs = panoptic
    folder_of_pngs = json_file.with_suffix("")
    write(json_file, content)
    folder_of_pngs.mkdir()
    for i, (png, original) in enumerate(pngs.items()):
        png.write_bytes(data if data is not None and not i else original)
    write(folder / "annotations" / "custom_train.json", COCO)
    try:
        return check_dataset(folder, "custom_train_panoptic")
    finally:
        json_file.unlink()
        shutil.rmtree(folder_of_pngs)
        (folder / "annotations" / "custom_train.json").unlink()


def test_panoptic_files_without_damage_are_accepted(folder, panoptic):
    assert check_panoptic(folder, panoptic, panoptic[1]) == 2


@SHORT
@given(data=st.data())
def test_mutated_panoptic_files_are_read_or_refused(folder, panoptic, data):
    check_panoptic(folder, panoptic, data.draw(mutated(panoptic[1])))


@pytest.mark.slow
@LONG
@given(data=st.data())
def test_thousands_of_mutated_panoptic_files(folder, panoptic, data):
    check_panoptic(folder, panoptic, data.draw(mutated(panoptic[1])))


@SHORT
@given(data=st.data())
def test_damaged_pngs_of_segments_are_read_or_refused(folder, panoptic, data):
    check_panoptic(folder, panoptic, panoptic[1], data.draw(damaged(next(iter(panoptic[2].values())))))


@pytest.mark.slow
@LONG
@given(data=st.data())
def test_thousands_of_damaged_pngs_of_segments(folder, panoptic, data):
    check_panoptic(folder, panoptic, panoptic[1], data.draw(damaged(next(iter(panoptic[2].values())))))
