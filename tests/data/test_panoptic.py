"""Panoptic datasets: registered, loaded as Detectron2's dicts, segments as annotations, every mistake named."""

import copy
import json
import os

import numpy as np
import pycocotools.mask as mask_util
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2_detr.data.datasets import balloon
from d2_detr.data.datasets import panoptic as panoptic_data
from d2_detr.data.datasets.classes import dataset_classes, dataset_label_map
from d2_detr.data.datasets.custom import TRAIN, VAL, register_custom
from d2_detr.data.datasets.panoptic import objects_of, read_segments, register_panoptic
from d2_detr.data.formats.coco_panoptic import read_ids, write_ids
from d2_detr.data.formats.panoptic_from_instances import make_panoptic
from d2_detr.utils.errors import InputError
from tests import shapes

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.data.detection_utils import annotations_to_instances, transform_instance_annotations
from detectron2.structures import BoxMode

NAME = "test_panoptic"
SKY, CAT, DOG = 70000, 300, 2  # segment ids: three, two and one byte of colour
IDS = np.full((4, 6), SKY)
IDS[2:, :3], IDS[2:, 4:], IDS[3, 3] = CAT, DOG, 0


def segment(segment_id, category_id, **changes):
    rows, columns = np.nonzero(segment_id == IDS)
    x, y = int(columns.min()), int(rows.min())
    bbox = [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]
    entry = {"id": segment_id, "category_id": category_id, "area": len(rows), "bbox": bbox, "iscrowd": 0}
    return entry | changes


def panoptic(**changes):
    base = {
        "images": [{"id": 8, "file_name": "sub/a.jpg", "width": 6, "height": 4}],
        "annotations": [
            {
                "image_id": 8,
                "file_name": "a.png",
                "segments_info": [segment(SKY, 1), segment(CAT, 9), segment(DOG, 4, iscrowd=1)],
            }
        ],
        "categories": [
            {"id": 9, "name": "cat", "isthing": 1},
            {"id": 1, "name": "sky", "isthing": 0},
            {"id": 4, "name": "dog", "isthing": 1},
            {"id": 0, "name": "sea", "isthing": 0},
        ],
    }
    return copy.deepcopy(base | changes)


@pytest.fixture
def register(tmp_path):
    """Write and register a dataset of one picture; its name."""

    def register(content, name=NAME, **options):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        write_ids(IDS, tmp_path / name / "a.png")
        register_panoptic(
            name,
            image_root=tmp_path / "pictures",
            panoptic_json=tmp_path / f"{name}.json",
            panoptic_root=tmp_path / name,
            **options,
        )
        names.add(name)
        return name

    names = set()
    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


# ---- registered and loaded


def test_a_picture_loads_as_detectron2_s_panoptic_dict(register, tmp_path):
    (record,) = DatasetCatalog.get(register(panoptic()))
    segments = record.pop("segments_info")
    assert record == {
        "file_name": str(tmp_path / "pictures" / "sub" / "a.jpg"),
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


def test_contiguous_ids_are_things_by_their_ids_and_then_stuff_by_theirs(register):
    name = register(panoptic(), instances="test_things")
    assert dataset_classes(name) == ["dog", "cat", "sea", "sky"]
    assert dataset_label_map(name).ids == (4, 9, 0, 1)
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == metadata.stuff_classes
    assert metadata.thing_dataset_id_to_contiguous_id == {4: 0, 9: 1}
    assert metadata.stuff_dataset_id_to_contiguous_id == {0: 2, 1: 3}
    assert metadata.evaluator_type == "coco_panoptic_seg" and metadata.instances == "test_things"


def test_nothing_is_read_before_it_is_asked_for_and_then_the_missing_file_names_the_tool(register, tmp_path):
    name = register(panoptic())
    (tmp_path / f"{NAME}.json").unlink()
    register_panoptic(name, image_root="", panoptic_json=tmp_path / "own_panoptic.json", panoptic_root="")
    assert MetadataCatalog.get(name).panoptic_json.endswith("own_panoptic.json")
    with pytest.raises(FileNotFoundError, match=r"own_panoptic\.json: no such.* tools/make_panoptic\.py \S*own\.json"):
        DatasetCatalog.get(name)


def test_a_second_registration_takes_the_place_of_the_first(register):
    dataset_classes(register(panoptic(), instances="first"))
    renamed = [category | {"name": category["name"].upper()} for category in panoptic()["categories"]]
    name = register(panoptic(categories=renamed))
    assert dataset_classes(name) == ["DOG", "CAT", "SEA", "SKY"]
    assert not hasattr(MetadataCatalog.get(name), "instances")


def test_ids_in_strings_of_digits_are_numbers(register):
    text = json.dumps(panoptic()).replace('"image_id": 8', '"image_id": "8"')
    text = text.replace('"category_id": 9', '"category_id": "9"').replace('"id": 300', '"id": "300"')
    (record,) = DatasetCatalog.get(register(json.loads(text)))
    cat = record["segments_info"][1]
    assert (record["image_id"], cat["id"], cat["category_id"]) == (8, CAT, 1)


# ---- segments as annotations


def test_the_objects_of_a_panoptic_dict_are_its_segments_and_the_png_is_not_read(register):
    (record,) = DatasetCatalog.get(register(panoptic()))
    for missing in ("pan_seg_file_name", "height", "width"):  # the last two as in Detectron2's own COCO
        del record[missing]
    assert objects_of(record) == [
        {"bbox": [0, 0, 6, 3], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 3, "iscrowd": 0},
        {"bbox": [0, 2, 3, 2], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1, "iscrowd": 0},
        {"bbox": [4, 2, 2, 2], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 1},
    ]


def test_the_objects_of_other_dicts_are_their_annotations():
    annotations = [{"bbox": [1, 2, 3, 4]}]
    for function in (objects_of, read_segments):
        assert function({"annotations": annotations}) == annotations
        assert function({"file_name": "a.jpg"}) == []


@pytest.mark.parametrize("sizes", [("height", "width"), ()], ids=["with_sizes", "without"])
def test_masks_of_segments_are_the_pixels_of_their_colour(register, sizes):
    (record,) = DatasetCatalog.get(register(panoptic()))
    record = {key: value for key, value in record.items() if key not in {"height", "width"} - set(sizes)}
    annotations = read_segments(record)
    assert [{k: v for k, v in a.items() if k != "segmentation"} for a in annotations] == objects_of(record)
    for annotation, segment_id in zip(annotations, (SKY, CAT, DOG), strict=True):
        assert (mask_util.decode(annotation["segmentation"]) == (segment_id == IDS)).all()
    assert all("segmentation" not in s for s in record["segments_info"])


def test_detectron2_transforms_the_masks_of_segments(register):
    (record,) = DatasetCatalog.get(register(panoptic()))
    flip = T.RandomFlip(prob=1.0).get_transform(IDS)
    flipped = [transform_instance_annotations(a, flip, IDS.shape) for a in read_segments(record)]
    masks = annotations_to_instances(flipped, IDS.shape, "bitmask").gt_masks.tensor.numpy()
    assert (masks == np.stack([(i == IDS)[:, ::-1] for i in (SKY, CAT, DOG)])).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), r"a\.png: .*damaged"),
        (lambda path: write_ids(IDS[:, 1:], path), r"a\.png: .* is 5 x 4 pixels, its annotation says width 6"),
        (lambda path: write_ids(np.where(IDS == CAT, 0, IDS), path), r"a\.png: no pixel of the segment with id 300"),
    ],
    ids=["cut_short", "another_size", "segment_missing"],
)
def test_a_png_that_is_not_what_its_entry_says_is_an_error(register, tmp_path, spoil, message):
    (record,) = DatasetCatalog.get(register(panoptic()))
    spoil(tmp_path / NAME / "a.png")
    with pytest.raises(InputError, match=message):
        read_segments(record)


@given(st.lists(st.integers(0, 2**24 - 1), min_size=1, max_size=12))
def test_ids_of_three_bytes_are_read_as_they_were_written(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp("ids") / "a.png"
    write_ids(np.array([ids, ids[::-1]]), path)
    assert read_ids(path).tolist() == [ids, ids[::-1]]


# ---- mistakes


def with_annotation(**changes):
    return panoptic(annotations=[panoptic()["annotations"][0] | changes])


def with_segment(**changes):
    return with_annotation(segments_info=[segment(SKY, 1), segment(CAT, 9) | changes])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no list 'images'"),
        (panoptic(annotations=[3]), "no list 'annotations' of objects"),
        (panoptic(categories=[]), "without categories"),
        (panoptic(categories=[{"id": 9, "name": "cat"}]), r"categories\[0\] \(cat\): isthing None.*make_panoptic\.py"),
        (panoptic(categories=[{"id": "x", "name": "cat", "isthing": 1}]), r"categories\[0\]: id 'x', expected"),
        (panoptic(categories=[{"id": 9, "isthing": 1}]), r"categories\[0\] \(id 9\): no `name`"),
        (panoptic(categories=panoptic()["categories"] * 2), r"categories\[4\]: id 9"),
        (panoptic(categories=[{"id": i, "name": "cat", "isthing": 1} for i in (1, 2)]), "two categories .* 'cat'"),
        (panoptic(images=[{"id": 8, "file_name": "a.jpg"}]), r"images\[0\] \(a\.jpg\): width and height are \[None, N"),
        (panoptic(images=[{"id": 8, "width": 6, "height": 4}]), r"images\[0\]: id 8 and file_name None"),
        (panoptic(images=panoptic()["images"] * 2), r"images\[1\]: id 8 and"),
        (panoptic(annotations=panoptic()["annotations"] * 2), r"annotations\[1\]: image_id 8 for a second time"),
        (with_annotation(image_id=9), r"annotations\[0\]: image_id 9 is not among the images"),
        (with_annotation(file_name=None), r"annotations\[0\] \(image_id 8\): no `file_name`"),
        (with_annotation(segments_info=None), r"annotations\[0\] \(a\.png\): no list `segments_info`"),
        (with_annotation(segments_info=[segment(SKY, 1)] * 2), r"annotations\[0\] \(a\.png\): two segments"),
        (with_segment(id=None), r"\(a\.png\): segments_info\[1\]: id None, expected the colour"),
        (with_segment(id=0), r"segments_info\[1\]: id 0, expected the colour"),
        (with_segment(id=1 << 24), r"segments_info\[1\]: id 16777216, expected the colour"),
        (with_segment(category_id=77), r"segments_info\[1\]: unknown category_id 77"),
        (with_segment(bbox=[1, 2, 3]), r"segments_info\[1\]: bbox \[1, 2, 3\], expected four numbers"),
        (with_segment(bbox=[1, 2, 3, float("nan")]), r"segments_info\[1\]: bbox .*, expected four numbers"),
    ],
    ids=[
        "a_list", "annotation_number", "no_categories", "instances_only", "category_id", "no_name", "category_twice",
        "name_twice", "no_size", "no_picture_name", "image_twice", "annotated_twice", "image_id", "no_png",
        "no_segments", "segment_twice", "no_segment_id", "void", "too_large_id", "category_unknown", "bbox", "nan",
    ],
)  # fmt: skip
def test_a_file_with_something_wrong_is_named_with_entry_and_field(register, content, message):
    name = register(content)
    with pytest.raises(InputError, match=rf"test_panoptic\.json: .*{message}"):
        DatasetCatalog.get(name)


def test_a_png_that_is_missing_shows_when_the_dataset_is_loaded(register, tmp_path):
    name = register(panoptic())
    (tmp_path / NAME / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"a\.png: named in .*{NAME}\.json, but there is no such file"):
        DatasetCatalog.get(name)


# ---- of the plugin


@pytest.fixture
def root(tmp_path):
    root = shapes.draw_shapes(tmp_path / "coco")
    for name in (TRAIN, VAL):
        make_panoptic(root / "annotations" / f"{name}.json")
    register_custom(root)
    return root


def test_a_dataset_of_one_s_own_has_its_panoptic_one_beside_it(root):
    for name in (TRAIN, VAL):
        panoptic_name = f"{name}_panoptic"
        assert MetadataCatalog.get(panoptic_name).instances == name
        assert dataset_classes(panoptic_name) == [*dataset_classes(name), "background"]
        pictures, same_pictures = (
            [(record["file_name"], record["image_id"]) for record in DatasetCatalog.get(n)]
            for n in (name, panoptic_name)
        )
        assert pictures == same_pictures
        things, same_things = (MetadataCatalog.get(n).thing_dataset_id_to_contiguous_id for n in (name, panoptic_name))
        assert things == same_things, "so that AP means the same classes"


@pytest.mark.parametrize("newer", [True, False], ids=["newer", "older"])
def test_masks_that_were_changed_since_are_warned_about(root, monkeypatch, newer):
    instances, made = (root / "annotations" / f"custom_train{kind}.json" for kind in ("", "_panoptic"))
    time = made.stat().st_mtime + (10 if newer else -10)
    os.utime(instances, (time, time))
    said = []
    monkeypatch.setattr(panoptic_data.logger, "warning", lambda text, *args: said.append(text % args))
    DatasetCatalog.get("custom_train_panoptic")
    assert bool(said) == newer and all(f"make_panoptic.py {instances}" in text for text in said)


def test_categories_that_differ_between_the_splits_are_an_error(root):
    make_panoptic(root / "annotations" / f"{VAL}.json", background="ground")
    assert DatasetCatalog.get(f"{TRAIN}_panoptic")
    with pytest.raises(
        InputError,
        match=r"custom_val_panoptic\.json: category 21 is 'ground' \(stuff\), in custom_train_panoptic\.json it is "
        r"'background' \(stuff\)",
    ):
        DatasetCatalog.get(f"{VAL}_panoptic")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_category_that_only_one_of_the_splits_has_is_an_error(root, split):
    path = root / "annotations" / f"custom_{split}_panoptic.json"
    content = json.loads(path.read_text())
    content["categories"].append({"id": 30, "name": "more", "isthing": 0})
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="category 30 is .*missing"):
        DatasetCatalog.get(f"{VAL}_panoptic")


def test_without_training_data_validation_has_its_own_classes(root):
    (root / "annotations" / "custom_train_panoptic.json").unlink()
    assert dataset_classes(f"{VAL}_panoptic")[-1] == "background"


def test_without_a_folder_it_is_said_how_to_give_one(root):
    DatasetCatalog.remove(f"{TRAIN}_panoptic")
    with pytest.raises(InputError, match=r"'custom_train_panoptic': say where it lies, with --data FOLDER"):
        dataset_classes(f"{TRAIN}_panoptic")


@pytest.mark.parametrize("split", balloon.SPLITS)
@pytest.mark.parametrize("name", balloon.NAMES)
def test_the_balloons_have_panoptic_datasets(name, split):
    folder = balloon.datasets_folder() / name
    metadata = MetadataCatalog.get(f"{name}_{split}_panoptic")
    assert f"{name}_{split}_panoptic" in DatasetCatalog and metadata.instances == f"{name}_{split}"
    assert metadata.panoptic_json == str(folder / "annotations" / f"{name}_{split}_panoptic.json")
    assert metadata.panoptic_root == str(folder / "annotations" / f"{name}_{split}_panoptic")
    assert metadata.image_root == str(folder / split)


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_s_panoptic_datasets_are_registered_by_detectron2_or_here_with_the_same_files(split):
    folder = balloon.datasets_folder() / "coco"
    metadata = MetadataCatalog.get(f"coco_2017_{split}_panoptic")
    assert f"coco_2017_{split}_panoptic" in DatasetCatalog
    assert metadata.evaluator_type == "coco_panoptic_seg" and metadata.instances == f"coco_2017_{split}"
    assert metadata.panoptic_json == str(folder / "annotations" / f"panoptic_{split}2017.json")
    assert metadata.panoptic_root == str(folder / f"panoptic_{split}2017")
    assert metadata.image_root == str(folder / f"{split}2017")
