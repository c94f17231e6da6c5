"""Masks at the command line: a detector, its mask head, panoptic segmentation, and their drawings."""

import json
import re

import pytest
import torch
import yaml
from PIL import Image

from tests.cli.processes import run
from tests.shapes import draw_shapes

BOXES = ("--config", "detr_compact_balloon.yaml", "--data")
TINY = (
    "MODEL.DEVICE cpu MODEL.DETR.ENC_LAYERS 1 MODEL.DETR.DEC_LAYERS 2 MODEL.DETR.DIM_FEEDFORWARD 32 "
    "INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 SOLVER.IMS_PER_BATCH 2 SOLVER.STEPS () SOLVER.MAX_ITER 3 "
    "DATALOADER.NUM_WORKERS 0 INPUT.MASK_FORMAT bitmask"
).split()
MASKS = ("MODEL.MASK_ON", "True")
PANOPTIC = (*MASKS, "MODEL.DETR.PANOPTIC_ON", "True", "MODEL.DETR.PANOPTIC_SCORE_THRESH", "0.1")

INSTANCES = ("DATASETS.TRAIN", "('custom_train',)", "DATASETS.TEST", "('custom_val',)")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw_shapes(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def detector(root, tmp_path_factory):
    """Folder of a box model of three classes."""
    folder = tmp_path_factory.mktemp("boxes")
    status, output = run(folder, "train_net.py", *BOXES, root, *TINY, "OUTPUT_DIR", folder)
    assert status == 0, output
    return folder


@pytest.fixture(scope="module")
def with_masks(root, detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    frozen = (*MASKS, "MODEL.DETR.FROZEN_WEIGHTS", detector / "model_final.pth")
    status, output = run(folder, "train_net.py", *BOXES, root, *TINY, *frozen, "OUTPUT_DIR", folder)
    assert status == 0, output
    assert "replace those of MODEL.WEIGHTS" in output
    return folder


def test_mask_training_keeps_the_detector_and_logs_both_ap(detector, with_masks):
    before, after = (torch.load(f / "model_final.pth", weights_only=True)["model"] for f in (detector, with_masks))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert len(after) > len(before)
    logged = [json.loads(line) for line in (with_masks / "metrics.json").read_text().splitlines()]
    assert {"bbox/AP50", "segm/AP50", "loss_mask", "loss_dice"} <= {name for line in logged for name in line}


def test_evaluation_and_drawings_have_masks(root, with_masks, tmp_path):
    weights = (*TINY, *MASKS, "MODEL.WEIGHTS", with_masks / "model_final.pth", "OUTPUT_DIR", tmp_path)
    status, output = run(tmp_path, "train_net.py", *BOXES, root, "--eval-only", *weights)
    assert status == 0, output
    assert output.count("Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all") == 2, "of boxes and of masks"
    assert "copypaste: Task: segm" in (tmp_path / "log.txt").read_text()
    results = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert results and all(result["segmentation"]["size"] == [64, 64] for result in results)

    drawings = tmp_path / "drawings"
    status, output = run(tmp_path, "visualize.py", *BOXES, root, "--output", drawings, "--threshold", "0", *weights)
    assert status == 0, output
    with Image.open(drawings / "overview.png") as image:
        assert image.width > 500


def test_panoptic_model_is_trained_from_instance_masks(root, with_masks, tmp_path):
    annotations = [root / "annotations" / f"custom_{split}.json" for split in ("train", "val")]
    status, output = run(tmp_path, "make_panoptic.py", *annotations)
    assert status == 0, output
    start = ("MODEL.WEIGHTS", with_masks / "model_final.pth", "OUTPUT_DIR", tmp_path)
    status, output = run(tmp_path, "train_net.py", *BOXES, root, *TINY, *PANOPTIC, *start)
    assert status == 0, output
    assert re.search(r"21 +3 +background", output), "category id, class and name in the table"
    assert re.search(r"Evaluation at iteration \d+, epoch \S+: AP .* mask AP .* PQ ", output)
    assert "copypaste: PQ,SQ,RQ,PQ_th,SQ_th,RQ_th,PQ_st,SQ_st,RQ_st" in (tmp_path / "log.txt").read_text()
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (config["MODEL"]["DETR"]["NUM_CLASSES"], config["MODEL"]["DETR"]["STUFF_CLASSES"]) == (4, [3])
    predictions = json.loads((tmp_path / "inference" / "predictions.json").read_text())["annotations"]
    assert len(predictions) == 3
    label_map = torch.load(tmp_path / "model_final.pth", weights_only=True)["label_map"]
    assert label_map == {"ids": [3, 7, 20, 21], "names": ["disc", "square", "triangle", "background"]}

    weights = (*PANOPTIC, "MODEL.WEIGHTS", tmp_path / "model_final.pth", "OUTPUT_DIR", tmp_path)
    status, output = run(
        tmp_path, "visualize.py", *BOXES, root, "--output", tmp_path / "drawings", "--threshold", "0", *TINY, *weights
    )
    assert status == 0, output
    assert {"overview.png", "curves.png"} <= {path.name for path in (tmp_path / "drawings").iterdir()}


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        ((*MASKS, "MODEL.DETR.NUM_CLASSES", "5"), "class head: it has 3 classes, the model 5"),
        (PANOPTIC, "custom_train_panoptic.json: no such file; make it from instance masks: "),
        ((*PANOPTIC, *INSTANCES), "dataset custom_train has no panoptic annotations"),
    ],
    ids=["class_count", "no_panoptic_file", "no_panoptic_dataset"],
)
def test_incompatible_training_is_one_error_message(detector, tmp_path, opts, message):
    root = draw_shapes(tmp_path / "coco", num_images=(2, 2))
    frozen = ("MODEL.DETR.FROZEN_WEIGHTS", detector / "model_final.pth") if opts[0] == MASKS[0] else ()
    status, output = run(tmp_path, "train_net.py", *BOXES, root, *TINY, *opts, *frozen, "OUTPUT_DIR", tmp_path / "run")
    assert status == 1 and "Traceback" not in output, output
    assert message in output
