import json
import logging
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest

import d2_detr  # noqa: F401  (selects the detectron2 to import)

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import convert_to_coco_json, load_coco_json, register_coco_instances
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.structures import BoxMode

TRIANGLE = [1.0, 1, 5, 1, 1, 4]  # area 6
MASK = np.zeros((8, 10), dtype=np.uint8, order="F")
MASK[2:4, 3:8] = 1
RLE = mask_util.encode(MASK)
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def coco_annotation(id, **fields):
    box = {"bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}
    return {"id": id, "image_id": 20, "category_id": 7} | box | fields


@pytest.fixture
def write(tmp_path):
    def write(*annotations, categories=CATEGORIES, name="some.json"):
        images = [{"id": i, "file_name": f"{i}.jpg", "height": 8, "width": 10} for i in (20, 10)]
        content = {"images": images, "categories": categories, "annotations": list(annotations)}
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path / name)

    return write


@pytest.fixture
def messages(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        yield lambda: caplog.messages


@pytest.fixture
def catalogs():
    """Remove the datasets and metadata that a test registers."""
    datasets, metadata = dict(DatasetCatalog), dict(MetadataCatalog)
    yield
    for catalog, before in ((DatasetCatalog, datasets), (MetadataCatalog, metadata)):
        for name in set(catalog) - set(before):
            catalog.pop(name)


def only_annotation(dicts):
    (annotation,) = dicts[1]["annotations"]
    return annotation


def test_images_are_sorted_by_id_and_have_paths_and_sizes(write):
    dicts = load_coco_json(write(), Path("root"))
    assert [d["image_id"] for d in dicts] == [10, 20]
    assert dicts[0] == {"file_name": "root/10.jpg", "image_id": 10, "height": 8, "width": 10, "annotations": []}


def test_without_a_dataset_name_category_ids_are_kept(write):
    annotation = only_annotation(load_coco_json(write(coco_annotation(1)), ""))
    assert annotation == {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 7, "iscrowd": 0}


def test_with_a_dataset_name_category_ids_become_contiguous(write, catalogs):
    annotation = only_annotation(load_coco_json(write(coco_annotation(1)), "", "pets_of_a_test"))
    metadata = MetadataCatalog.get("pets_of_a_test")
    assert annotation["category_id"] == 1
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}


def test_polygons_of_fewer_than_three_points_are_dropped(write, messages):
    path = write(coco_annotation(1, segmentation=[TRIANGLE, [1, 2, 3, 4]]), coco_annotation(2, segmentation=[[1, 2]]))
    assert only_annotation(load_coco_json(path, ""))["segmentation"] == [TRIANGLE]
    assert any(" 1 " in message for message in messages())


@pytest.mark.parametrize(
    "counts", [RLE["counts"].decode(), [26, 2, 6, 2, 6, 2, 6, 2, 6, 2, 20]], ids=["compressed", "uncompressed"]
)
def test_rles_are_compressed_on_reading(write, counts):
    path = write(coco_annotation(1, segmentation={"size": [8, 10], "counts": counts}))
    assert np.array_equal(mask_util.decode(only_annotation(load_coco_json(path, ""))["segmentation"]), MASK)


@pytest.mark.parametrize(
    "annotations, error",
    [
        ([coco_annotation(1, bbox=[])], ValueError),
        ([coco_annotation(1, ignore=1)], AssertionError),
        ([coco_annotation(1), coco_annotation(1)], AssertionError),
        ([coco_annotation(1, category_id=5)], KeyError),
    ],
    ids=["empty box", "ignored", "duplicate ids", "unknown category"],
)
def test_invalid_files_are_refused(write, catalogs, annotations, error):
    with pytest.raises(error):
        load_coco_json(write(*annotations), "", "broken")


def test_registering_sets_metadata_without_reading_the_file(write, catalogs):
    register_coco_instances("registered", {"color": "red"}, "nowhere.json", "images")
    expected = {"json_file": "nowhere.json", "image_root": "images", "evaluator_type": "coco", "color": "red"}
    assert vars(MetadataCatalog.get("registered")) == {"name": "registered"} | expected
    register_coco_instances("readable", {}, write(), "images")
    assert [d["file_name"] for d in DatasetCatalog.get("readable")] == ["images/10.jpg", "images/20.jpg"]


def test_builtin_metadata_exists_without_the_coco_files():
    metadata = MetadataCatalog.get("coco_2017_val")
    assert metadata.json_file.endswith("coco/annotations/instances_val2017.json")
    assert metadata.image_root.endswith("coco/val2017") and metadata.evaluator_type == "coco"
    assert len(metadata.thing_classes) == len(metadata.thing_colors) == 80
    assert metadata.thing_dataset_id_to_contiguous_id[90] == 79
    assert metadata.thing_classes[79] == "toothbrush" and metadata.thing_colors[0] == [220, 20, 60]
    sets = {f"coco_2017_{split}" for split in ("train", "val", "test", "test-dev", "val_100")}
    assert sets <= set(DatasetCatalog.list())


def dataset(*annotations):
    return [{"file_name": "a.jpg", "image_id": 4, "height": 8, "width": 10, "annotations": list(annotations)}]


def annotation(**fields):
    return {"bbox": [1.0, 2.0, 4.0, 6.0], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1} | fields


def register(dicts, name="to_write", **metadata):
    DatasetCatalog.register(name, lambda: dicts)
    MetadataCatalog.get(name).set(thing_classes=["a", "b"], **metadata)
    return name


def test_a_dataset_is_written_in_coco_format(catalogs):
    content = convert_to_coco_dict(register(dataset(annotation(), annotation(iscrowd=1))))
    assert content["images"] == [{"id": 4, "width": 10, "height": 8, "file_name": "a.jpg"}]
    assert content["categories"] == [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]
    first = {"id": 1, "image_id": 4, "category_id": 1, "iscrowd": 0, "bbox": [1, 2, 3, 4], "area": 12}
    assert content["annotations"] == [first, first | {"id": 2, "iscrowd": 1}]


def test_category_ids_are_mapped_back(catalogs):
    name = register(dataset(annotation()), thing_dataset_id_to_contiguous_id={5: 1, 9: 0})
    content = convert_to_coco_dict(name)
    assert content["annotations"][0]["category_id"] == 5
    assert content["categories"] == [{"id": 9, "name": "a"}, {"id": 5, "name": "b"}]


@pytest.mark.parametrize("segm, area", [([TRIANGLE], 6), (RLE, 10)], ids=["polygon", "rle"])
def test_the_area_is_computed_from_the_segmentation(catalogs, segm, area):
    content = convert_to_coco_dict(register(dataset(annotation(segmentation=segm))))
    assert content["annotations"][0]["area"] == area
    assert json.loads(json.dumps(content))["annotations"][0]["segmentation"] is not None


def test_coordinates_of_polygons_are_written_unchanged(catalogs):
    content = convert_to_coco_dict(register(dataset(annotation(segmentation=[[1.5, 1, 5, 1, 1, 4]]))))
    assert json.dumps(content["annotations"][0]["segmentation"]) == "[[1.5, 1, 5, 1, 1, 4]]"


def test_a_test_set_is_written_without_annotations(catalogs):
    assert "annotations" not in convert_to_coco_dict(register(dataset()))


def test_a_written_dataset_is_read_back_the_same(catalogs, tmp_path):
    dicts = dataset(annotation(segmentation=[TRIANGLE]), annotation(segmentation=dict(RLE), category_id=0))
    path = str(tmp_path / "new" / "out.json")
    convert_to_coco_json(register(dicts), path)
    (image,) = load_coco_json(path, "")
    polygon, mask = image.pop("annotations")
    assert image == {key: value for key, value in dicts[0].items() if key != "annotations"}
    assert polygon["segmentation"] == [TRIANGLE] and polygon["category_id"] == 1
    assert np.array_equal(mask_util.decode(mask["segmentation"]), MASK) and mask["category_id"] == 0
    assert polygon["bbox"] == [1, 2, 3, 4] and polygon["bbox_mode"] == BoxMode.XYWH_ABS


def test_an_existing_file_is_not_overwritten(catalogs, tmp_path):
    path = tmp_path / "out.json"
    path.write_text("{}")
    convert_to_coco_json(register(dataset(annotation())), str(path))
    assert path.read_text() == "{}"
