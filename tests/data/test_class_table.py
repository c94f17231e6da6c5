"""The class table counts what is there, and warns of what looks wrong."""

import shutil

import pytest

from d2_detr.data.datasets.custom import TRAIN, VAL
from d2_detr.data.validation import class_table
from d2_detr.data.validation.class_table import check_images, look_at_data
from d2_detr.data.validation.statistics import compute_stats
from d2_detr.utils.errors import InputError
from d2_detr.workflows.setup import load_config
from tests import shapes

from detectron2.data import DatasetCatalog


@pytest.fixture
def root(monkeypatch, tmp_path):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    return shapes.draw_shapes(tmp_path / "coco")


@pytest.fixture
def said(root, monkeypatch):
    """Table and warnings of the dataset."""

    def said(*opts):
        texts = []
        for level in ("info", "warning"):
            monkeypatch.setattr(class_table.logger, level, lambda text, *args: texts.append(str(text) % args))
        look_at_data(load_config("", list(opts), str(root)), evaluation_only=False)
        return texts[0], texts[1:]

    return said


def loaded(*names):
    return {name: DatasetCatalog.get(name) for name in names}


def change(root, split, change_entry):
    coco = shapes.read(root, split)
    coco["annotations"] = [new for entry in coco["annotations"] if (new := change_entry(entry))]
    shapes.write(coco, root, split)


def test_the_table_has_ids_names_boxes_and_pictures_of_both_splits(root, said):
    table, warned = said()
    for i, (category_id, name) in enumerate(shapes.CATEGORIES.items()):
        counts = []
        for split in ("train", "val"):
            found = [a["image_id"] for a in shapes.read(root, split)["annotations"] if a["category_id"] == category_id]
            counts += [str(len(found)), str(len(set(found)))]
        row = next(line.split() for line in table.splitlines() if name in line)
        assert row == [str(category_id), str(i), name, *counts]
    assert next(line.split() for line in table.splitlines() if " all " in line)[2:5:2] == ["6", "3"]
    assert warned == []


def test_crowds_are_not_counted_and_pictures_without_objects_are(root):
    change(root, "train", lambda entry: entry | {"iscrowd": 1})
    load_config("", [], str(root))
    found = compute_stats(loaded(TRAIN))
    assert found.boxes.total() == 0 and found.num_empty == found.num_pictures == 6


@pytest.mark.parametrize(
    ("split", "message"),
    [("train", "custom_train has no box of disc: what is missing there cannot be learned"),
     ("val", "custom_val has no box of disc: what is missing there will have no AP")],
)  # fmt: skip
def test_a_class_that_is_missing_in_a_split_is_warned_about(root, said, split, message):
    change(root, split, lambda entry: entry if entry["category_id"] != 3 else None)
    assert [w for w in said()[1] if message in w]


def test_more_objects_than_queries_are_warned_about_with_the_picture(root, said):
    most = max(survey_of(root).objects.values())
    (warned,) = [w for w in said("MODEL.DETR.NUM_OBJECT_QUERIES", str(most - 1))[1] if "queries" in w and TRAIN in w]
    assert f"({most - 1})" in warned and f"with {most}" in warned and ".png" in warned
    assert not [w for w in said("MODEL.DETR.NUM_OBJECT_QUERIES", str(most))[1] if TRAIN in w]


def survey_of(root):
    load_config("", [], str(root))
    return compute_stats(loaded(TRAIN))


@pytest.mark.parametrize(("excess", "warned"), [(0.9, False), (3, True)], ids=["rounding", "outside"])
def test_boxes_that_stick_out_are_warned_about_with_number_and_picture(root, said, excess, warned):
    def stretch(entry):
        x, y, _, height = entry["bbox"]
        return entry | {"bbox": [x, y, 64 + excess - x, height]} if entry["id"] < 2 else entry

    change(root, "train", stretch)
    found = [w for w in said()[1] if "stick out" in w]
    assert bool(found) == warned
    assert not warned or (found[0].startswith("2 boxes of custom_train") and "00001.png" in found[0])


def test_boxes_that_nobody_draws_are_warned_about(root, said):
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
    repeated, thin = sorted(said()[1], key=lambda text: "pixels" in text)
    assert repeated.startswith("1 boxes of custom_val are there a second time") and name in repeated
    assert thin.startswith("1 boxes of custom_val are less than 2 pixels wide or high") and name in thin


def test_a_picture_of_both_parts_is_warned_about_under_whatever_name(root, said):
    first_val = root / "val2017" / shapes.read(root, "val")["images"][0]["file_name"]
    train = root / "train2017" / shapes.read(root, "train")["images"][0]["file_name"]
    shutil.copy(train, first_val)
    (warned,) = said()[1]
    assert warned.startswith("1 pictures of custom_val are trained on, too") and str(first_val) in warned


def test_pictures_that_the_annotations_do_not_name_are_warned_about(root, said):
    train = root / "train2017"
    (train / "notes.txt").touch()
    (train / ".hidden.png").touch()
    shutil.copy(train / "00001.png", train / "zz.PNG")
    (warned,) = said()[1]
    assert warned.startswith("1 pictures beside the others are not in the annotations") and "zz.PNG" in warned


def test_pictures_are_known_by_whatever_name_their_folder_has_and_masks_are_none(root, said):
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
    assert said()[1] == []


@pytest.mark.parametrize(
    ("split", "message"),
    [("train", "6 pictures, so there is nothing to learn"), ("val", "3 pictures, so there is no AP")],
)
def test_a_part_without_objects_is_refused(root, said, split, message):
    change(root, split, lambda entry: None)
    with pytest.raises(InputError, match=f"custom_{split}: not an object in {message}"):
        said()


def test_pictures_that_are_missing_broken_or_resized_are_found_before_training(root):
    load_config("", [], str(root))
    check_images(loaded(TRAIN, VAL))
    path = root / "train2017" / "00004.png"
    whole = path.read_bytes()
    path.write_bytes(b"<html>")
    with pytest.raises(InputError, match=r"00004\.png: not a picture"):
        check_images(loaded(TRAIN))
    path.write_bytes(whole[:-30])
    with pytest.raises(InputError, match=r"00004\.png: the picture is damaged or cut short"):
        check_images(loaded(TRAIN))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"00004\.png: no such picture"):
        check_images(loaded(TRAIN))
    path.write_bytes(whole)
    coco = shapes.read(root, "train")
    coco["images"][3]["width"] = 200
    shapes.write(coco, root, "train")
    with pytest.raises(InputError, match=r"00004\.png: the picture is 64 x 64 pixels, its annotation says width 200"):
        check_images(loaded(TRAIN))
