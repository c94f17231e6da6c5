"""The report of a training or an evaluation: what it contains, and writing it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from d2_detr.engine.distributed import num_gpus_option
from d2_detr.evaluation.evaluate import metric_prefix
from d2_detr.evaluation.score_curves import MIN_USEFUL_F1
from d2_detr.report.image_cards import data_uri
from d2_detr.report.page import Report, save_report
from d2_detr.report.results import describe_results, plot_training_curves
from d2_detr.report.summary import summarize_run
from d2_detr.structures.dataset import Dataset
from d2_detr.utils.command_line import command
from d2_detr.utils.files import read_json
from d2_detr.visualization.training_images import TRAINING_IMAGES

from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


def write_report(
    path: Path,
    cfg: CfgNode,
    model: nn.Module,
    weights: str | Path,
    *,
    dataset: Dataset | None,
    train_datasets: Sequence[Dataset] = (),
    results_file: Path,
    panoptic_quality: float | None = None,
    metrics: Sequence[dict] = (),
    iteration: int = -1,
) -> None:
    """Write the report of a run as an HTML file, in the main process.

    Args:
        model: with the weights loaded, in evaluation mode; not wrapped for several processes.
        weights: its checkpoint.
        dataset: the evaluated dataset, the first of DATASETS.TEST; None without one.
        train_datasets: the datasets of the training; () for a mere evaluation.
        results_file: the predictions for `dataset`, as COCOEvaluator writes them. Without it there is no evaluation in
            the report.
        metrics: the lines of the training's metrics.json; () for a mere evaluation.
        iteration: of the training, from 0, after which the model was saved.
    """
    output = Path(cfg.OUTPUT_DIR)
    datasets = [dataset.name] if dataset else [train_dataset.name for train_dataset in train_datasets]
    results: dict[str, Any] = {}
    if dataset and results_file.is_file():
        results = describe_results(cfg, model, dataset, read_json(results_file), panoptic_quality)
    is_useful = bool(results) and results["best_f1"] >= MIN_USEFUL_F1
    predict_command = ""
    if is_useful:
        threshold = f"{results['threshold']:.2f}"
        places = ("--input", "photos", "--output", "detections")
        predict_command = command("predict", "--weights", weights, *places, "--threshold", threshold)
    repeat_command = command(
        "train", "--config", output / "config.yaml", "--output", f"{output}_again", *num_gpus_option()
    )
    report = Report(
        title=f"DETR on {Path(cfg.DATASETS.CUSTOM).name or ', '.join(datasets)}: {output.name}",
        summary=summarize_run(
            cfg, model, weights, dataset=dataset, train_datasets=train_datasets, metrics=metrics, iteration=iteration
        ),
        predict_command=predict_command,
        repeat_command=repeat_command if metrics else "",
        training_curves=plot_training_curves(_metrics_of_first_dataset(metrics, cfg)),
        training_images=_training_images(output / TRAINING_IMAGES) if metrics else "",
        training_images_caption=_training_images_caption(cfg),
        **results,
    )
    save_report(report, path)
    logger.info("Report: %s", path)
    if is_useful:
        logger.info("Predict the objects in other images: %s", predict_command)
    elif results:
        logger.warning(
            "The predictions are not useful at any score threshold (best F1 %.2f). Start from the weights of a trained "
            "DETR, train for more epochs, and check the annotations in the images of the report",
            report.best_f1,
        )  # fmt: skip


def _metrics_of_first_dataset(metrics: Sequence[dict], cfg: CfgNode) -> list[dict]:
    """Remove the name of the first of several test sets from its metrics."""
    prefix = metric_prefix(cfg)
    return [{name.removeprefix(prefix): value for name, value in line.items()} for line in metrics]


def _training_images(path: Path) -> str:
    if not path.is_file():
        return ""
    with Image.open(path) as image:
        return data_uri(image.convert("RGB"), "JPEG")


def _training_images_caption(cfg: CfgNode) -> str:
    steps = ["flipped"] * (cfg.INPUT.RANDOM_FLIP != "none") + ["cropped"] * cfg.INPUT.CROP.ENABLED
    augmented = f"{', '.join(steps)} and resized" if steps else "resized"
    return f"Training images as the model sees them ({augmented}), with their ground truth."
