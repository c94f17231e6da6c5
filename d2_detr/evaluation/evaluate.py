"""Evaluate a model on datasets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from d2_detr.data.loaders import build_test_loader
from d2_detr.evaluation.coco import KnownClassesEvaluator
from d2_detr.evaluation.losses import LossEvaluator
from d2_detr.evaluation.panoptic import PanopticEvaluator
from d2_detr.structures.dataset import Dataset

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset, print_csv_format
from detectron2.utils import comm

logger = logging.getLogger(print_csv_format.__module__)  # the heading belongs to the lines that it logs


def evaluate_model(
    cfg: CfgNode, model: nn.Module, datasets: Sequence[Dataset], *, quiet: bool = False, folder: Path | None = None
) -> dict[str, Any]:
    """Measure the AP, the losses and, of a panoptic model, the panoptic quality on the datasets of DATASETS.TEST.

    Args:
        quiet: log what pycocotools prints at DEBUG instead of printing it.
        folder: for the predictions; None for OUTPUT_DIR/inference. Each of several datasets has a folder in it.

    Returns:
        As Detectron2's DefaultTrainer.test: {task: {measure: value}} for one dataset, the same by dataset name for
        several. The results of a dataset are empty in all processes but the main one.
    """
    results = {}
    for dataset in datasets:
        evaluator = build_evaluator(cfg, dataset, inference_folder(cfg, dataset.name, folder), quiet=quiet)
        results[dataset.name] = inference_on_dataset(model, build_test_loader(cfg, dataset), evaluator)
        if comm.is_main_process():
            logger.info("Metrics for %s in csv format:", dataset.name)
            print_csv_format(results[dataset.name])
    return next(iter(results.values())) if len(results) == 1 else results


def build_evaluator(cfg: CfgNode, dataset: Dataset, folder: Path, *, quiet: bool) -> DatasetEvaluator:
    """Build the evaluators of everything that the model of the config predicts, which write to a folder."""
    tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
    evaluators: list[DatasetEvaluator] = [
        KnownClassesEvaluator(dataset.things, tasks, output_dir=str(folder), quiet=quiet),
        LossEvaluator(cfg.MODEL.DETR.NUM_OBJECT_QUERIES, cfg.MODEL.DETR.NO_OBJECT_WEIGHT),
    ]
    if cfg.MODEL.DETR.PANOPTIC_ON:
        evaluators.append(PanopticEvaluator(dataset, folder))
    return DatasetEvaluators(evaluators)


def inference_folder(cfg: CfgNode, dataset_name: str, folder: Path | None = None) -> Path:
    """Return the folder for the predictions for a dataset; see evaluate_model."""
    folder = folder or Path(cfg.OUTPUT_DIR) / "inference"
    return folder / dataset_name if len(cfg.DATASETS.TEST) > 1 else folder


def results_file(cfg: CfgNode, folder: Path | None = None) -> Path:
    """Return the file that COCOEvaluator writes for the first test set: predictions in COCO's results format."""
    return inference_folder(cfg, next(iter(cfg.DATASETS.TEST), ""), folder) / "coco_instances_results.json"


def panoptic_quality(cfg: CfgNode, results: Mapping[str, Any]) -> float | None:
    """Return PQ on the first test set in the results of `evaluate_model`; None if it was not measured."""
    first = results.get(cfg.DATASETS.TEST[0], {}) if metric_prefix(cfg) else results
    return first.get("panoptic_seg", {}).get("PQ")


def comparison_metrics(cfg: CfgNode) -> list[str]:
    """Return the names of the metrics by which models are compared on the first test set, the decisive one first."""
    metrics = ["panoptic_seg/PQ"] * cfg.MODEL.DETR.PANOPTIC_ON + ["segm/AP"] * cfg.MODEL.MASK_ON + ["bbox/AP"]
    return [metric_prefix(cfg) + metric for metric in metrics]


def metric_prefix(cfg: CfgNode) -> str:
    """Return what begins the names of metrics on the first test set: its name if there are several."""
    return f"{cfg.DATASETS.TEST[0]}/" if len(cfg.DATASETS.TEST) > 1 else ""
