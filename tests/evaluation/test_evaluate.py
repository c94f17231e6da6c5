"""Evaluation of a model on datasets."""

import logging

import pytest
import torch

from d2_detr.config import load_config
from d2_detr.data.datasets import load_dataset
from d2_detr.evaluation.coco import logger as coco_logger
from d2_detr.evaluation.evaluate import comparison_metrics, evaluate_model, panoptic_quality, results_file
from tests.inference.untrained import untrained_model
from tests.shapes import draw_shapes

DATA = ("DATASETS.TEST", "('custom_val',)", "DATALOADER.NUM_WORKERS", "0")


@pytest.fixture
def root(tmp_path):
    return draw_shapes(tmp_path / "coco")


def test_results_of_several_datasets_are_keyed_by_name(root, tmp_path):
    model, cfg = untrained_model(*DATA, "OUTPUT_DIR", str(tmp_path / "one"))
    train, val = (load_dataset(f"custom_{split}", root) for split in ("train", "val"))
    one = evaluate_model(cfg, model, [val])
    assert {"AP", "AP50", "AP-disc"} < set(one["bbox"]) and "loss_ce" in one["validation"]
    assert results_file(cfg) == tmp_path / "one/inference/coco_instances_results.json" and results_file(cfg).is_file()
    cfg.DATASETS.TEST, cfg.OUTPUT_DIR = ("custom_val", "custom_train"), str(tmp_path / "two")
    two = evaluate_model(cfg, model, [val, train])
    assert two["custom_val"]["bbox"] == pytest.approx(one["bbox"], nan_ok=True) and set(two) == {*cfg.DATASETS.TEST}
    for name in cfg.DATASETS.TEST:
        assert (tmp_path / "two/inference" / name / "coco_instances_results.json").is_file()
    assert comparison_metrics(cfg) == ["custom_val/bbox/AP"] and panoptic_quality(cfg, two) is None


def test_predictions_can_be_written_to_another_folder(root, tmp_path):
    model, cfg = untrained_model(*DATA, "OUTPUT_DIR", str(tmp_path / "run"))
    evaluate_model(cfg, model, [load_dataset("custom_val", root)], folder=tmp_path / "other")
    assert results_file(cfg, tmp_path / "other").is_file() and not (tmp_path / "run").exists()


class Printing:
    """Prints like pycocotools in Detectron2's evaluator."""

    def evaluate(self):
        print("Average Precision")
        return {}


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet_logs_pycocotools_output_instead_of_printing(root, tmp_path, capsys, caplog, monkeypatch, quiet):
    model, cfg = untrained_model(*DATA, "OUTPUT_DIR", str(tmp_path))
    monkeypatch.setattr("detectron2.evaluation.COCOEvaluator.evaluate", Printing.evaluate)
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    with caplog.at_level(logging.DEBUG, coco_logger.name):
        evaluate_model(cfg, model, [load_dataset("custom_val", root)], quiet=quiet)
    logged = {record.levelname for record in caplog.records if record.getMessage() == "Average Precision"}
    assert ("Average Precision" in capsys.readouterr().out) == (not quiet)
    assert logged == ({"DEBUG"} if quiet else set())


def test_classes_that_the_dataset_lacks_are_ignored(root, tmp_path):
    """COCOEvaluator raises an error for such predictions."""
    model, cfg = untrained_model(*DATA, "OUTPUT_DIR", str(tmp_path), "MODEL.DETR.NUM_CLASSES", "5")
    with torch.no_grad():
        model.detr.class_embed.bias[4] += 10
    assert "bbox" in evaluate_model(cfg, model, [load_dataset("custom_val", root)])


@pytest.mark.parametrize(
    ("opts", "metrics"),
    [
        ([], ["bbox/AP"]),
        (["MODEL.MASK_ON", "True"], ["segm/AP", "bbox/AP"]),
        (["MODEL.MASK_ON", "True", "MODEL.DETR.PANOPTIC_ON", "True"], ["panoptic_seg/PQ", "segm/AP", "bbox/AP"]),
        (["DATASETS.TEST", "('balloon_val', 'coco_2017_val')"], ["balloon_val/bbox/AP"]),
    ],
    ids=["boxes", "masks", "panoptic", "two_datasets"],
)
def test_comparison_metrics_depend_on_model_and_datasets(opts, metrics):
    assert comparison_metrics(load_config("detr_compact_balloon_drawn.yaml", opts)) == metrics
