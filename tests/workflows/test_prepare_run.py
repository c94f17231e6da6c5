"""Dataset, config and weights are validated before a run writes anything."""

import pytest
import torch
import torchvision

from d2_detr.config import load_config
from d2_detr.utils.errors import InputError
from d2_detr.workflows.prepare_run import prepare_run
from tests import shapes


@pytest.fixture
def custom_dataset(monkeypatch, tmp_path):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    return shapes.draw_shapes(tmp_path / "coco")


def prepare(root, output_dir, *opts, eval_only=False):
    opts = ["OUTPUT_DIR", str(output_dir), "MODEL.DEVICE", "cpu", "MODEL.DETR.AUTOCAST", "off", *map(str, opts)]
    return prepare_run(load_config("detr_compact_balloon.yaml", opts, str(root)), evaluation_only=eval_only)[0]


def edit(root, change):
    coco = shapes.read(root, "train")
    change(coco)
    shapes.write(coco, root, "train")


def damage_annotations(change):
    return lambda root: edit(root, lambda coco: coco["annotations"][2].update(change))


def rewrite(name, content):
    return lambda root: (root / name).write_bytes(content)


MISTAKES = {
    "no_annotations": (lambda root: (root / "annotations/custom_val.json").unlink(), "custom_val.json: no such file"),
    "not_json": (rewrite("annotations/custom_train.json", b"{'a'}"), "custom_train.json: not a complete JSON file"),
    "cut_short": (rewrite("annotations/custom_train.json", b'{"images": ['), "custom_train.json: not a complete JSON"),
    "another_format": (rewrite("annotations/custom_train.json", b'{"shapes": []}'), "no list 'images', so not COCO's"),
    "image_missing": (lambda root: (root / "val2017/00002.png").unlink(), "val2017/00002.png: no such image"),
    "image_corrupt": (rewrite("train2017/00002.png", b"GIF?"), "train2017/00002.png: not an image"),
    "two_points": (
        damage_annotations({"segmentation": [[1, 2, 3, 4]]}),
        "annotations[2] (id 2): segmentation has a pol",
    ),
    "polygon_outside": (damage_annotations({"segmentation": [[99, 2, 98, 4, 97, 9]]}), "a polygon outside the image"),
    "negative": (damage_annotations({"bbox": [9, 9, -5, 4]}), "annotations[2] (id 2): bbox [9, 9, -5, 4] has a negat"),
    "unknown_category": (damage_annotations({"category_id": 8}), "annotations[2] (id 2): unknown category_id 8"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_invalid_dataset_is_one_error_and_overwrites_nothing(custom_dataset, tmp_path, mistake):
    damage, message = MISTAKES[mistake]
    damage(custom_dataset)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("of an earlier run")
    with pytest.raises((InputError, FileNotFoundError)) as error:
        prepare(custom_dataset, tmp_path / "run")
    assert message in str(error.value)
    assert (tmp_path / "run" / "config.yaml").read_text() == "of an earlier run"
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"config.yaml", "log.txt"}


def test_boxes_given_as_corners_are_an_error(custom_dataset, tmp_path):
    def to_corners(coco):
        for entry in coco["annotations"]:
            x, y, w, h = entry["bbox"]
            entry["bbox"] = [x, y, x + w, y + h]

    edit(custom_dataset, to_corners)
    with pytest.raises(InputError, match=r"custom_train\.json: the boxes look like corners"):
        prepare(custom_dataset, tmp_path / "run")


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("MODEL.DETR.NUM_CLASSES", 2), "NUM_CLASSES is 2, but dataset custom_train has 3 categories; set it to 3"),
        (("MODEL.WEIGHTS", "no_such.pth"), r"no_such\.pth: no such checkpoint"),
        (("MODEL.WEIGHTS", "detr://r5"), "detr://r5: no such model; choose from detr://r50"),
        (("SOLVER.PATIENCE", 3, "TEST.EVAL_PERIOD", 0), "PATIENCE 3 counts evaluations .*, but there are none"),
    ],
    ids=["class_count", "no_weights", "no_name", "patience"],
)
def test_invalid_config_is_one_error_and_writes_nothing(custom_dataset, tmp_path, opts, message):
    with pytest.raises((InputError, FileNotFoundError), match=message):
        prepare(custom_dataset, tmp_path / "run", *opts)
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"log.txt"}


def test_backbone_weights_can_train_but_not_evaluate(custom_dataset, tmp_path):
    weights = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), weights)
    prepare(custom_dataset, tmp_path / "run", "MODEL.WEIGHTS", weights)
    with pytest.raises(InputError, match=r"resnet18\.pth: detector: .* only holds a backbone; nothing trains it here"):
        prepare(custom_dataset, tmp_path / "run", "MODEL.WEIGHTS", weights, eval_only=True)


def test_resumed_run_does_not_need_its_initial_weights(custom_dataset, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model_0000001.pth").touch()
    opts = ["OUTPUT_DIR", str(tmp_path / "run"), "MODEL.WEIGHTS", "no_longer_there.pth"]
    prepare_run(load_config("detr_compact_balloon.yaml", opts, str(custom_dataset)), resume=True)
