"""A dataset of one's own: registered, with its classes, as pycocotools reads it."""

import json
import shutil
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from d2_detr.data.datasets.classes import dataset_classes, dataset_label_map, resolve_num_classes
from d2_detr.data.datasets.custom import TRAIN, VAL, register_custom
from d2_detr.utils.errors import InputError
from d2_detr.workflows.setup import load_config
from tests import shapes

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    root = shapes.draw_shapes(tmp_path / "coco")
    register_custom(root)
    return root


def change(root, split, **changes):
    shapes.write(shapes.read(root, split) | changes, root, split)


def test_both_splits_have_their_pictures_and_classes_0_to_k_1(root):
    for name, number, folder in ((TRAIN, 6, "train2017"), (VAL, 3, "val2017")):
        records = DatasetCatalog.get(name)
        assert len(records) == number
        assert all(record["file_name"].startswith(str(root / folder)) for record in records)
        assert {a["category_id"] for record in records for a in record["annotations"]} <= {0, 1, 2}
        assert dataset_label_map(name).ids == (3, 7, 20)
        assert dataset_classes(name) == ["disc", "square", "triangle"]


@pytest.mark.parametrize(
    "ids", [{3: 0, 7: 1, 20: 2}, {3: 1, 7: 2, 20: 3}, {3: "10", 7: "2", 20: "30"}, {3: 90, 7: 50, 20: 1}],
    ids=["from_0", "from_1", "strings", "falling"],
)  # fmt: skip
def test_ids_of_any_kind_name_the_same_objects(root, ids):
    before = [[a["category_id"] for a in record["annotations"]] for record in DatasetCatalog.get(TRAIN)]
    for split in ("train", "val"):
        coco = shapes.read(root, split)
        for entry in coco["annotations"]:
            entry["category_id"] = ids[entry["category_id"]]
        for entry in coco["categories"]:
            entry["id"] = ids[entry["id"]]
        shapes.write(coco, root, split)
    register_custom(root)
    order = sorted(ids, key=lambda i: int(ids[i]))
    contiguous = [order.index(i) for i in shapes.CATEGORIES]
    after = [[a["category_id"] for a in record["annotations"]] for record in DatasetCatalog.get(TRAIN)]
    assert after == [[contiguous[i] for i in classes] for classes in before]
    names = [shapes.CATEGORIES[i] for i in order]
    assert dataset_classes(TRAIN) == names and dataset_classes(VAL) == names


def perfect(record):
    instances = Instances((record["height"], record["width"]))
    xywh = [a["bbox"] for a in record["annotations"]]
    instances.pred_boxes = Boxes([[x, y, x + w, y + h] for x, y, w, h in xywh])
    instances.scores = instances.pred_boxes.tensor.new_ones(len(xywh))
    instances.pred_classes = instances.scores.new_tensor([a["category_id"] for a in record["annotations"]]).long()
    return {"instances": instances}


def test_perfect_predictions_have_an_ap_of_100_although_an_annotation_has_the_id_0(root, tmp_path):
    assert shapes.read(root, "val")["annotations"][0]["id"] == 0
    records = DatasetCatalog.get(VAL)
    evaluator = COCOEvaluator(VAL, output_dir=str(tmp_path / "inference"))
    evaluator.reset()
    evaluator.process(records, [perfect(record) for record in records])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
    results = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert {result["category_id"] for result in results} <= {3, 7, 20}, "results have the ids of the annotations"


def test_the_evaluation_file_is_in_the_cache_and_a_changed_dataset_gets_another(root, tmp_path, capsys):
    dataset_classes(VAL)
    first = MetadataCatalog.get(VAL).json_file
    assert first.startswith(str(tmp_path / "cache"))
    assert sorted(COCO(first).anns) == list(range(1, len(COCO(first).anns) + 1))
    change(root, "val", annotations=shapes.read(root, "val")["annotations"][:1])
    register_custom(root)
    dataset_classes(VAL)
    assert MetadataCatalog.get(VAL).json_file != first and len(COCO(MetadataCatalog.get(VAL).json_file).anns) == 1


def test_a_class_that_validation_does_not_list_keeps_its_number(root):
    categories = shapes.read(root, "val")["categories"][1:]
    annotations = [a for a in shapes.read(root, "val")["annotations"] if a["category_id"] != 3]
    change(root, "val", categories=categories, annotations=annotations)
    assert dataset_classes(VAL) == ["disc", "square", "triangle"]
    assert {a["category_id"] for r in DatasetCatalog.get(VAL) for a in r["annotations"]} == {1, 2}
    assert len(COCO(MetadataCatalog.get(VAL).json_file).cats) == 3


@pytest.mark.parametrize(
    ("category", "message"),
    [({"id": 20, "name": "star"}, "category 20 is 'star', it is 'triangle' in .*custom_train.json"),
     ({"id": 21, "name": "star"}, "category 21 is 'star', which .*custom_train.json does not have")],
    ids=["another_name", "another_id"],
)  # fmt: skip
def test_categories_that_differ_between_the_splits_are_an_error(root, category, message):
    change(root, "val", categories=[category], annotations=[])
    with pytest.raises(InputError, match=message):
        DatasetCatalog.get(VAL)


def test_without_training_data_validation_has_its_own_classes(root):
    (root / "annotations" / "custom_train.json").unlink()
    assert dataset_classes(VAL) == ["disc", "square", "triangle"]


def test_a_folder_of_pictures_that_comes_later_is_found(root):
    (root / "val2017").rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"custom_val\.json: there is no folder .* expected \S*coco/val2017$"):
        DatasetCatalog.get(VAL)
    (root / "elsewhere").rename(root / "val2017")
    (root / "val2017" / "00001.png").unlink()
    assert len(DatasetCatalog.get(VAL)) == 3, "a picture alone is missed when all are looked at"


def test_without_the_pictures_of_training_validation_has_the_classes_of_training(root):
    shutil.rmtree(root / "train2017")
    change(root, "val", categories=shapes.read(root, "val")["categories"][:2], annotations=[])
    assert dataset_classes(VAL) == ["disc", "square", "triangle"]


def test_pictures_may_lie_anywhere_if_the_annotations_say_where(root, tmp_path):
    folder = shutil.move(root / "val2017", tmp_path / "elsewhere")
    images = shapes.read(root, "val")["images"]
    change(root, "val", images=[image | {"file_name": f"{folder}/{image['file_name']}"} for image in images])
    assert all(Path(record["file_name"]).parent == folder for record in DatasetCatalog.get(VAL))


def test_without_a_folder_it_is_said_how_to_give_one():
    for name in (TRAIN, VAL):
        DatasetCatalog.pop(name, None)
    cfg = load_config("detr_r50_custom.yaml", [])
    with pytest.raises(InputError, match=r"'custom_train': say where it lies, with --data FOLDER .*DATASETS\.CUSTOM"):
        resolve_num_classes(cfg)


def test_a_folder_on_the_command_line_takes_the_place_of_a_configs_datasets(root):
    cfg = load_config("detr_256_6_6_torchvision.yaml", [], str(root))
    assert cfg.DATASETS.TRAIN == (TRAIN,) and cfg.DATASETS.TEST == (VAL,)
    assert cfg.DATASETS.CUSTOM.endswith("coco")
    assert resolve_num_classes(cfg) == 3
    assert load_config("", ["MODEL.DETR.NUM_CLASSES", "5"], str(root)).MODEL.DETR.NUM_CLASSES == 5
    written = load_config("detr_r50_custom.yaml", ["DATASETS.CUSTOM", str(root)])
    assert resolve_num_classes(written) == 3, "the key alone does as well"
