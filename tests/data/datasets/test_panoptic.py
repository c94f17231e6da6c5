"""Panoptic datasets: read into Detectron2's format, beside the instances of a custom dataset."""

import json
import os
from pathlib import Path

import pytest

from d2_detr.config.keys import CUSTOM_TRAIN, CUSTOM_VAL
from d2_detr.data.datasets import load_dataset
from d2_detr.data.datasets import panoptic as panoptic_data
from d2_detr.data.datasets.panoptic import PanopticSource
from d2_detr.data.formats.coco_panoptic import write_ids
from d2_detr.data.formats.panoptic_from_instances import make_panoptic
from d2_detr.data.validation.checks import check_images
from d2_detr.utils.errors import InputError
from tests.data.panoptic_sample import CAT, DOG, IDS, SKY, panoptic
from tests.shapes import draw_shapes

NAME = "test_panoptic"


@pytest.fixture
def write(tmp_path):
    """Write a dataset of one image; return its source."""

    def write(content):
        (tmp_path / f"{NAME}.json").write_text(json.dumps(content))
        write_ids(IDS, tmp_path / NAME / "a.png")
        return PanopticSource(tmp_path / "images", tmp_path / f"{NAME}.json", tmp_path / NAME, instances="test_things")

    return write


def test_image_is_read_as_a_detectron2_panoptic_dict(write, tmp_path):
    (record,), _ = write(panoptic()).read()
    segments = record.pop("segments_info")
    assert record == {
        "file_name": str(tmp_path / "images" / "sub" / "a.jpg"),
        "image_id": 8,
        "height": 4,
        "width": 6,
        "pan_seg_file_name": str(tmp_path / NAME / "a.png"),
    }
    assert [(s["id"], s["category_id"], s["isthing"], s["iscrowd"]) for s in segments] == [
        (SKY, 3, False, 0),
        (CAT, 1, True, 0),
        (DOG, 0, True, 1),
    ]
    assert [(s["area"], s["bbox"]) for s in segments] == [(13, [0, 0, 6, 3]), (6, [0, 2, 3, 2]), (4, [4, 2, 2, 2])]


def test_contiguous_ids_are_things_by_id_then_stuff_by_id(write):
    _, metadata = write(panoptic()).read()
    assert metadata["thing_classes"] == metadata["stuff_classes"] == ["dog", "cat", "sea", "sky"]
    assert metadata["thing_dataset_id_to_contiguous_id"] == {4: 0, 9: 1}
    assert metadata["stuff_dataset_id_to_contiguous_id"] == {0: 2, 1: 3}
    assert metadata["evaluator_type"] == "coco_panoptic_seg" and metadata["instances"] == "test_things"


def test_a_missing_png_is_an_error_when_the_dataset_is_read(write, tmp_path):
    source = write(panoptic())
    (tmp_path / NAME / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"a\.png: no such file, but .*{NAME}\.json names it"):
        source.read()


@pytest.mark.parametrize("name", ["/etc/a.png", "../a.png"])
@pytest.mark.parametrize("section", ["images", "annotations"])
def test_images_and_pngs_outside_their_folders_are_an_error(write, section, name):
    content = panoptic()
    content[section][0]["file_name"] = name
    with pytest.raises(InputError, match=rf"{NAME}\.json: the image '.*a\.png' is outside the folder "):
        write(content).read()


@pytest.mark.parametrize("bytes_kept", [0, 60])
def test_a_truncated_png_is_an_error_before_the_training(root, bytes_kept):
    dataset = load_dataset(f"{CUSTOM_VAL}_panoptic", root)
    png = Path(dataset.records[1]["pan_seg_file_name"])
    check_images([dataset])
    png.write_bytes(png.read_bytes()[:bytes_kept])
    with pytest.raises(InputError, match=rf"{png.name}: (the image is damaged|not an image)"):
        check_images([dataset])


# ---- custom datasets


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    root = draw_shapes(tmp_path / "coco")
    for name in (CUSTOM_TRAIN, CUSTOM_VAL):
        make_panoptic(root / "annotations" / f"{name}.json")
    return root


@pytest.mark.parametrize("name", [CUSTOM_TRAIN, CUSTOM_VAL])
def test_a_custom_dataset_has_a_panoptic_version_with_its_things(root, name):
    dataset = load_dataset(f"{name}_panoptic", root)
    assert dataset.things.name == name and dataset.stuff_classes == (3,)
    assert dataset.label_map.names == (*dataset.things.label_map.names, "background")
    images, same_images = ([(r["file_name"], r["image_id"]) for r in d.records] for d in (dataset, dataset.things))
    assert images == same_images
    things, same_things = (d.metadata.thing_dataset_id_to_contiguous_id for d in (dataset, dataset.things))
    assert things == same_things, "so that AP means the same classes"


@pytest.mark.parametrize("newer", [True, False], ids=["newer", "older"])
def test_outdated_panoptic_file_is_warned_about(root, monkeypatch, newer):
    instances, panoptic_file = (root / "annotations" / f"custom_train{kind}.json" for kind in ("", "_panoptic"))
    time = panoptic_file.stat().st_mtime + (10 if newer else -10)
    os.utime(instances, (time, time))
    warnings = []
    monkeypatch.setattr(panoptic_data.logger, "warning", lambda text, *args: warnings.append(text % args))
    load_dataset("custom_train_panoptic", root)
    assert bool(warnings) == newer and all(f"make-panoptic {instances}" in text for text in warnings)


def test_categories_that_differ_between_splits_are_an_error(root):
    make_panoptic(root / "annotations" / f"{CUSTOM_VAL}.json", background="ground")
    assert load_dataset(f"{CUSTOM_TRAIN}_panoptic", root)
    with pytest.raises(
        InputError,
        match=r"custom_val_panoptic\.json: category 21 is 'ground' \(stuff\), but 'background' \(stuff\) in "
        r"custom_train_panoptic\.json",
    ):
        load_dataset(f"{CUSTOM_VAL}_panoptic", root)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_category_that_one_split_lacks_is_an_error(root, split):
    path = root / "annotations" / f"custom_{split}_panoptic.json"
    content = json.loads(path.read_text())
    content["categories"].append({"id": 30, "name": "more", "isthing": 0})
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="category 30 is .*missing"):
        load_dataset(f"{CUSTOM_VAL}_panoptic", root)


def test_without_training_data_validation_has_its_own_classes(root):
    (root / "annotations" / "custom_train_panoptic.json").unlink()
    assert load_dataset(f"{CUSTOM_VAL}_panoptic", root).label_map.names[-1] == "background"


def test_missing_folder_error_names_the_option():
    with pytest.raises(InputError, match=r"'custom_train_panoptic': give its folder with --data FOLDER"):
        load_dataset(f"{CUSTOM_TRAIN}_panoptic")
