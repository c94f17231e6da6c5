"""A custom dataset: read, registered, with its classes, and evaluated by pycocotools."""

import json
import shutil
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from d2_detr.config import load_config
from d2_detr.config.keys import CUSTOM_TEST, CUSTOM_TRAIN, CUSTOM_VAL
from d2_detr.data.datasets import load_dataset, load_datasets, register_custom
from d2_detr.utils import files
from d2_detr.utils.errors import InputError
from tests import shapes

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

NAMES = ("disc", "square", "triangle")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return shapes.draw_shapes(tmp_path / "coco")


def change(root, split, **changes):
    shapes.write(shapes.read(root, split) | changes, root, split)


def test_both_splits_have_their_images_and_contiguous_classes(root):
    for name, number, folder in ((CUSTOM_TRAIN, 6, "train2017"), (CUSTOM_VAL, 3, "val2017")):
        dataset = load_dataset(name, root)
        assert (dataset.name, len(dataset.records)) == (name, number)
        assert all(record["file_name"].startswith(str(root / folder)) for record in dataset.records)
        assert {a["category_id"] for record in dataset.records for a in record["annotations"]} <= {0, 1, 2}
        assert (dataset.label_map.ids, dataset.label_map.names) == ((3, 7, 20), NAMES)


@pytest.mark.parametrize(
    "ids", [{3: 0, 7: 1, 20: 2}, {3: 1, 7: 2, 20: 3}, {3: "10", 7: "2", 20: "30"}, {3: 90, 7: 50, 20: 1}],
    ids=["from_0", "from_1", "strings", "descending"],
)  # fmt: skip
def test_category_ids_of_any_kind_give_the_same_classes(root, ids):
    before = [[a["category_id"] for a in r["annotations"]] for r in load_dataset(CUSTOM_TRAIN, root).records]
    for split in ("train", "val"):
        coco = shapes.read(root, split)
        for entry in coco["annotations"]:
            entry["category_id"] = ids[entry["category_id"]]
        for entry in coco["categories"]:
            entry["id"] = ids[entry["id"]]
        shapes.write(coco, root, split)
    order = sorted(ids, key=lambda i: int(ids[i]))
    contiguous = [order.index(i) for i in shapes.CATEGORIES]
    train, val = (load_dataset(name, root) for name in (CUSTOM_TRAIN, CUSTOM_VAL))
    after = [[a["category_id"] for a in record["annotations"]] for record in train.records]
    assert after == [[contiguous[i] for i in classes] for classes in before]
    assert train.label_map.names == val.label_map.names == tuple(shapes.CATEGORIES[i] for i in order)


def perfect_prediction(record):
    instances = Instances((record["height"], record["width"]))
    xywh = [a["bbox"] for a in record["annotations"]]
    instances.pred_boxes = Boxes([[x, y, x + w, y + h] for x, y, w, h in xywh])
    instances.scores = instances.pred_boxes.tensor.new_ones(len(xywh))
    instances.pred_classes = instances.scores.new_tensor([a["category_id"] for a in record["annotations"]]).long()
    return {"instances": instances}


def test_perfect_predictions_have_ap_100_with_annotation_id_0(root, tmp_path):
    assert shapes.read(root, "val")["annotations"][0]["id"] == 0
    dataset = load_dataset(CUSTOM_VAL, root)
    evaluator = COCOEvaluator(dataset.catalog_name, output_dir=str(tmp_path / "inference"))
    evaluator.reset()
    evaluator.process(dataset.records, [perfect_prediction(record) for record in dataset.records])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
    results = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert {result["category_id"] for result in results} <= {3, 7, 20}, "category ids of the annotations"


def test_evaluation_file_is_cached_by_its_content(root, tmp_path):
    first = load_dataset(CUSTOM_VAL, root).json_file
    assert first.is_relative_to(tmp_path / "cache")
    assert sorted(COCO(str(first)).anns) == list(range(1, len(COCO(str(first)).anns) + 1))
    change(root, "val", annotations=shapes.read(root, "val")["annotations"][:1])
    second = load_dataset(CUSTOM_VAL, root).json_file
    assert second != first and len(COCO(str(second)).anns) == 1


# ---- reading and registration


def test_a_run_reads_every_annotation_file_once(root, monkeypatch):
    read, original = [], files.read_json
    for module in ("conversion", "layouts"):
        monkeypatch.setattr(
            f"d2_detr.data.datasets.{module}.read_json", lambda path: read.append(Path(path).name) or original(path)
        )
    datasets = load_datasets(load_config("detr_r50_custom.yaml", [], root))
    assert (len(datasets.train[0].records), len(datasets.test[0].records)) == (6, 3)
    assert sorted(read) == ["custom_train.json", "custom_val.json"]


def test_only_evaluated_datasets_are_written_to_the_cache(root, tmp_path):
    load_datasets(load_config("detr_r50_custom.yaml", [], root))
    assert [path.name.split("-")[0] for path in (tmp_path / "cache").rglob("*.json")] == ["custom_val"]


def test_another_folder_does_not_redirect_a_dataset_in_use(root, tmp_path):
    first = load_dataset(CUSTOM_VAL, root)
    other = load_dataset(CUSTOM_VAL, shapes.draw_shapes(tmp_path / "other", num_images=(1, 2)))
    assert (first.name, first.json_file) == (other.name, first.json_file) and first.json_file != other.json_file
    assert len(DatasetCatalog.get(first.catalog_name)) == 3 and len(DatasetCatalog.get(other.catalog_name)) == 2
    assert first.metadata.image_root == str(root / "val2017")


def test_register_custom_uses_the_plain_dataset_names(root, tmp_path):
    for folder, number in ((root, 3), (shapes.draw_shapes(tmp_path / "other", num_images=(1, 2)), 2)):
        register_custom(folder)
        assert len(DatasetCatalog.get(CUSTOM_VAL)) == number
        assert MetadataCatalog.get(CUSTOM_TRAIN).thing_classes == list(NAMES)


def test_registered_dataset_is_reread_after_a_change(root):
    register_custom(root)
    change(root, "val", images=shapes.read(root, "val")["images"][:2], annotations=[])
    assert len(DatasetCatalog.get(CUSTOM_VAL)) == 2


# ---- splits


def test_test_split_is_a_separate_dataset(root):
    shutil.copy(root / "annotations/custom_val.json", root / "annotations/custom_test.json")
    shutil.copytree(root / "val2017", root / "test2017")
    dataset = load_dataset(CUSTOM_TEST, root)
    assert {Path(record["file_name"]).parent for record in dataset.records} == {root / "test2017"}


def test_class_missing_in_validation_keeps_its_index(root):
    categories = shapes.read(root, "val")["categories"][1:]
    annotations = [a for a in shapes.read(root, "val")["annotations"] if a["category_id"] != 3]
    change(root, "val", categories=categories, annotations=annotations)
    dataset = load_dataset(CUSTOM_VAL, root)
    assert dataset.label_map.names == NAMES
    assert {a["category_id"] for r in dataset.records for a in r["annotations"]} == {1, 2}
    assert len(COCO(str(dataset.json_file)).cats) == 3


@pytest.mark.parametrize(
    ("category", "message"),
    [({"id": 20, "name": "star"}, "category 20 is 'star', but 'triangle' in .*custom_train.json"),
     ({"id": 21, "name": "star"}, "category 21 is 'star', but missing in .*custom_train.json")],
    ids=["another_name", "another_id"],
)  # fmt: skip
def test_categories_that_differ_between_splits_are_an_error(root, category, message):
    change(root, "val", categories=[category], annotations=[])
    with pytest.raises(InputError, match=message):
        load_dataset(CUSTOM_VAL, root)


def test_without_training_data_validation_has_its_own_classes(root):
    (root / "annotations" / "custom_train.json").unlink()
    assert load_dataset(CUSTOM_VAL, root).label_map.names == NAMES


def test_without_training_images_validation_has_the_training_classes(root):
    shutil.rmtree(root / "train2017")
    change(root, "val", categories=shapes.read(root, "val")["categories"][:2], annotations=[])
    assert load_dataset(CUSTOM_VAL, root).label_map.names == NAMES


def test_a_missing_folder_of_images_is_named(root):
    (root / "val2017").rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"custom_val\.json: the folder of its .* expected \S*coco/val2017$"):
        load_dataset(CUSTOM_VAL, root)
    (root / "elsewhere").rename(root / "val2017")
    (root / "val2017" / "00001.png").unlink()
    assert len(load_dataset(CUSTOM_VAL, root).records) == 3, "validation reports single missing images, not loading"


@pytest.mark.parametrize("where", ["{root}/photos/val", "../photos/val"], ids=["absolute", "above"])
def test_images_may_be_in_any_folder_of_the_dataset(root, where):
    folder = root / "photos" / "val"
    folder.parent.mkdir()
    shutil.move(root / "val2017", folder)
    images = shapes.read(root, "val")["images"]
    prefix = where.format(root=root)
    change(root, "val", images=[image | {"file_name": f"{prefix}/{image['file_name']}"} for image in images])
    assert all(Path(record["file_name"]).parent == folder for record in load_dataset(CUSTOM_VAL, root).records)


def test_images_outside_the_dataset_are_refused_unless_linked(root, tmp_path):
    folder = shutil.move(root / "val2017", tmp_path / "elsewhere")
    images = shapes.read(root, "val")["images"]
    for prefix in (folder, "../../elsewhere"):
        change(root, "val", images=[image | {"file_name": f"{prefix}/{image['file_name']}"} for image in images])
        with pytest.raises(
            InputError, match=r"custom_val\.json: the image '.*elsewhere/00001\.png' is outside the .*ln"
        ):
            load_dataset(CUSTOM_VAL, root)
    change(root, "val", images=images)
    (root / "val2017").symlink_to(folder)
    assert all(Path(record["file_name"]).is_file() for record in load_dataset(CUSTOM_VAL, root).records)


def test_missing_folder_error_names_the_option():
    with pytest.raises(InputError, match=r"'custom_test': give its folder with --data FOLDER .*DATASETS\.CUSTOM"):
        load_dataset(CUSTOM_TEST)


def test_unknown_dataset_error_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'my_set' is not registered; known are .*balloon_train.*coco_2017_val"):
        load_dataset("my_set")


@pytest.mark.parametrize("strict", [False, True])
def test_strict_makes_a_degenerate_annotation_an_error(root, strict):
    annotations = shapes.read(root, "train")["annotations"]
    annotations[1]["bbox"] = [1, 1, 0, 5]
    change(root, "train", annotations=annotations)
    cfg = load_config("detr_r50_custom.yaml", ["DATASETS.STRICT", strict], root)
    if strict:
        with pytest.raises(InputError, match=r"annotations\[1\]"):
            load_datasets(cfg)
    else:
        num_annotations = sum(len(record["annotations"]) for record in load_datasets(cfg).train[0].records)
        assert num_annotations == len(annotations) - 1


@pytest.mark.parametrize(("filter_empty", "expected"), [("True", 4), ("False", 6)])
def test_training_images_without_objects_can_be_filtered(root, filter_empty, expected):
    annotations = [{**a, "iscrowd": int(a["image_id"] == 2)} for a in shapes.read(root, "train")["annotations"]]
    change(root, "train", annotations=[a for a in annotations if a["image_id"] != 1])
    cfg = load_config("detr_r50_custom.yaml", ["DATALOADER.FILTER_EMPTY_ANNOTATIONS", filter_empty], root)
    datasets = load_datasets(cfg)
    assert (len(datasets.train_records), len(datasets.test[0].records)) == (expected, 3)
