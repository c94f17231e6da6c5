"""Validation of the data: class table, warnings, and errors before a training starts."""

import re
import shutil
from pathlib import Path

import pytest

from d2_detr.config.keys import CUSTOM_TRAIN, CUSTOM_VAL
from d2_detr.data.datasets import load_dataset
from d2_detr.data.validation import checks, statistics, validate, warnings
from d2_detr.data.validation.checks import check_images, check_masks
from d2_detr.data.validation.statistics import compute_stats
from d2_detr.structures.dataset import Dataset
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.command_line import command
from d2_detr.utils.errors import InputError
from tests import shapes

from detectron2.data import Metadata
from detectron2.structures import BoxMode


@pytest.fixture
def root(monkeypatch, tmp_path):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    return shapes.draw_shapes(tmp_path / "coco")


@pytest.fixture
def validated(root, monkeypatch):
    """Class table and warnings of the dataset."""

    def validated(num_queries=100):
        texts = []
        for level in ("info", "warning"):
            monkeypatch.setattr(validate.logger, level, lambda text, *args: texts.append(str(text) % args))
        options = {"num_queries": num_queries, "with_masks": False}
        validate.validate_data(load(root, CUSTOM_TRAIN), load(root, CUSTOM_VAL), **options)
        return texts[0], texts[1:]

    return validated


def load(root, *names):
    return [load_dataset(name, root) for name in names]


def dataset_of(*records):
    return Dataset("mine", "mine", list(records), LabelMap(()), Metadata())


def change(root, split, change_entry):
    coco = shapes.read(root, split)
    coco["annotations"] = [new for entry in coco["annotations"] if (new := change_entry(entry))]
    shapes.write(coco, root, split)


def test_the_class_table_counts_boxes_and_images_per_split(root, validated):
    table, warnings = validated()
    for i, (category_id, name) in enumerate(shapes.CATEGORIES.items()):
        counts = []
        for split in ("train", "val"):
            ids = [a["image_id"] for a in shapes.read(root, split)["annotations"] if a["category_id"] == category_id]
            counts += [str(len(ids)), str(len(set(ids)))]
        row = next(line.split() for line in table.splitlines() if name in line)
        assert row == [str(category_id), str(i), name, *counts]
    assert next(line.split() for line in table.splitlines() if " all " in line)[2:5:2] == ["6", "3"]
    assert warnings == []


def test_statistics_count_empty_images_but_not_crowds(root):
    change(root, "train", lambda entry: entry | {"iscrowd": 1})
    stats = compute_stats(load(root, CUSTOM_TRAIN))
    assert stats.num_boxes == 0 and stats.num_empty == stats.num_images == 6


@pytest.mark.parametrize(
    ("split", "message"),
    [("train", "custom_train has no box of disc: a class without boxes cannot be learned"),
     ("val", "custom_val has no box of disc: a class without boxes will have no AP")],
)  # fmt: skip
def test_a_class_without_boxes_in_a_split_is_warned_about(root, validated, split, message):
    change(root, split, lambda entry: entry if entry["category_id"] != 3 else None)
    assert [w for w in validated()[1] if message in w]


def test_more_objects_than_queries_are_warned_about(root, validated):
    most = max(compute_stats(load(root, CUSTOM_TRAIN)).objects_per_image.values())
    (warning,) = [w for w in validated(num_queries=most - 1)[1] if "queries" in w and CUSTOM_TRAIN in w]
    assert f"({most - 1})" in warning and f"with {most}" in warning and ".png" in warning
    assert not [w for w in validated(num_queries=most)[1] if CUSTOM_TRAIN in w]


@pytest.mark.parametrize(("excess", "warned"), [(0.9, False), (3, True)], ids=["rounding", "outside"])
def test_boxes_out_of_bounds_are_warned_about(root, validated, excess, warned):
    def stretch(entry):
        x, y, _, height = entry["bbox"]
        return entry | {"bbox": [x, y, 64 + excess - x, height]} if entry["id"] < 2 else entry

    change(root, "train", stretch)
    warnings = [w for w in validated()[1] if "out of bounds" in w]
    assert bool(warnings) == warned
    assert not warned or (re.match(r"2 of \d+ boxes in custom_train are", warnings[0]) and "00001.png" in warnings[0])


def test_boxes_in_images_of_unknown_size_are_within_bounds():
    box = {"bbox": [-9, 0, 999, 9], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    record = {"file_name": "a.jpg", "annotations": [box]}
    assert compute_stats([dataset_of(record | {"width": 99, "height": 99})]).out_of_bounds == ["a.jpg"]
    assert compute_stats([dataset_of(record)]).out_of_bounds == []


def test_degenerate_and_duplicate_boxes_are_warned_about(root, validated):
    coco = shapes.read(root, "val")
    first = coco["annotations"][0]
    other_class = next(c["id"] for c in coco["categories"] if c["id"] != first["category_id"])
    coco["annotations"] += [
        first | {"id": 901},
        first | {"id": 902, "category_id": other_class},
        first | {"id": 903, "bbox": [3, 3, 20, 1]},
    ]
    shapes.write(coco, root, "val")
    name = next(image["file_name"] for image in coco["images"] if image["id"] == first["image_id"])
    duplicate, degenerate = sorted(validated()[1], key=lambda text: "pixels" in text)
    assert re.match(r"1 of \d+ boxes in custom_val are duplicates", duplicate) and name in duplicate
    assert re.match(r"1 of \d+ boxes in custom_val are less than 2 pixels wide or high", degenerate)
    assert name in degenerate


def test_an_image_in_both_splits_is_warned_about(root, validated):
    first_val = root / "val2017" / shapes.read(root, "val")["images"][0]["file_name"]
    train = root / "train2017" / shapes.read(root, "train")["images"][0]["file_name"]
    shutil.copy(train, first_val)
    (warning,) = validated()[1]
    assert warning.startswith("1 of 3 images in custom_val are also in custom_train") and str(first_val) in warning


def test_augmented_copies_in_both_splits_are_warned_about(root, validated):
    names = {"train": ["a", "a", "a", "b", "b", "b"], "val": ["c", "b", "a"]}
    for split, originals in names.items():
        coco = shapes.read(root, split)
        for i, (image, original) in enumerate(zip(coco["images"], originals, strict=True)):
            name = f"{original}_png.rf.{split}{i}.png"
            (root / f"{split}2017" / image["file_name"]).rename(root / f"{split}2017" / name)
            image["file_name"] = name
        shapes.write(coco, root, split)
    (warning,) = validated()[1]
    assert warning.startswith("2 of 3 images in custom_val are augmented copies of images in custom_train, first ")
    assert "b_png.rf.val1.png" in warning and "AP will be too high" in warning and "d2_detr split" in warning


def test_images_without_an_entry_are_warned_about(root, validated):
    train = root / "train2017"
    (train / "notes.txt").touch()
    (train / ".hidden.png").touch()
    shutil.copy(train / "00001.png", train / "zz.PNG")
    (warning,) = validated()[1]
    assert warning.startswith("1 images in the same folders are not in the annotations") and "zz.PNG" in warning


def test_linked_folders_and_other_file_types_are_no_warning(root, validated):
    (root / "images").mkdir()
    for split in ("train", "val"):
        coco = shapes.read(root, split)
        for image in coco["images"]:
            (root / f"{split}2017" / image["file_name"]).rename(root / "images" / f"{split}_{image['file_name']}")
            image["file_name"] = f"{split}_{image['file_name']}"
        shapes.write(coco, root, split)
        (root / f"{split}2017").rmdir()
        (root / f"{split}2017").symlink_to(root / "images")
    (root / "images" / "train_00001_mask.bmp").touch()
    assert validated()[1] == []


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", "6 images, so there is nothing to learn"),
        (
            "val",
            "3 images, so AP cannot be measured; annotate them, split the annotated images "
            rf"\({re.escape(command('split'))}\), or train without evaluation \(DATASETS.TEST '\(\)'\)$",
        ),
    ],
    ids=["train", "val"],
)
def test_a_split_without_objects_is_an_error(root, validated, split, message):
    change(root, split, lambda entry: None)
    with pytest.raises(InputError, match=f"custom_{split}: no objects in {message}"):
        validated()


def test_an_evaluation_validates_images_and_masks_only(root, monkeypatch):
    change(root, "val", lambda entry: entry | {"bbox": [3, 3, 20, 1]})
    monkeypatch.setattr(validate, "logger", None)  # nothing is logged
    options = {"num_queries": 1, "with_masks": True}
    [val] = load(root, CUSTOM_VAL)
    validate.validate_data([], [val], **options)
    no_masks = [r | {"annotations": [a | {"segmentation": []} for a in r["annotations"]]} for r in val.records]
    with pytest.raises(InputError, match="an object has no mask"):
        validate.validate_data([], [dataset_of(*no_masks)], **options)
    (root / "val2017" / "00002.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"00002\.png"):
        validate.validate_data([], [val], **options)


def test_objects_without_masks_are_counted():
    masked = {"file_name": "a.jpg", "annotations": [{"segmentation": [[0, 0, 1, 0, 1, 1]]}]}
    boxes = {"file_name": "b.jpg", "annotations": [{}, {"segmentation": []}]}
    check_masks([dataset_of(masked)])
    with pytest.raises(InputError, match=r"^b\.jpg: an object has no mask.*\(and 1 more objects\)$"):
        check_masks([dataset_of(masked, boxes)])


def test_missing_damaged_and_resized_images_are_errors(root):
    check_images(load(root, CUSTOM_TRAIN, CUSTOM_VAL))
    path = root / "train2017" / "00004.png"
    content = path.read_bytes()
    path.write_bytes(b"<html>")
    with pytest.raises(InputError, match=r"00004\.png: not an image"):
        check_images(load(root, CUSTOM_TRAIN))
    path.write_bytes(content[:-30])
    with pytest.raises(InputError, match=r"00004\.png: the image is damaged or truncated"):
        check_images(load(root, CUSTOM_TRAIN))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"00004\.png: no such image"):
        check_images(load(root, CUSTOM_TRAIN))
    path.write_bytes(content)
    coco = shapes.read(root, "train")
    coco["images"][3]["width"] = 200
    shapes.write(coco, root, "train")
    with pytest.raises(InputError, match=r"00004\.png: the image is 64 x 64 pixels, its annotation says width 200"):
        check_images(load(root, CUSTOM_TRAIN))


def test_several_processes_count_and_check_as_one(root, monkeypatch):
    change(root, "train", lambda entry: entry | {"segmentation": []} if entry["id"] in (3, 9) else entry)
    change(root, "train", lambda entry: entry | {"bbox": [60, 3, 20, 1]} if entry["id"] == 5 else entry)
    datasets = load(root, CUSTOM_TRAIN, CUSTOM_VAL)
    found = []
    for size in (2, 2000):
        for module in (checks, statistics):
            monkeypatch.setattr(module, "num_cores", lambda: 2)
            monkeypatch.setattr(module, "CHUNK_SIZE", size)
        with pytest.raises(InputError) as error:
            check_masks(datasets)
        found.append((str(error.value), compute_stats(datasets)))
    assert found[0] == found[1] and found[0][0].endswith("(and 1 more objects)")
    assert found[0][1].out_of_bounds == found[0][1].degenerate != []
    assert list(found[0][1].objects_per_image) == list(found[1][1].objects_per_image)


def test_files_that_differ_only_at_the_beginning_are_not_the_same(tmp_path):
    names = [str(tmp_path / name) for name in ("a.png", "b.png", "c.png", "d.png")]
    for name, content in zip(names, (b"1" * 999, b"2" + b"1" * 998, b"1" * 998, b"1" * 999), strict=True):
        Path(name).write_bytes(content)
    assert warnings._same_content(names[:1], names[1:]) == [names[3]]
