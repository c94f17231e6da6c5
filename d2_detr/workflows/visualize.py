"""Drawings of predictions beside the ground truth, of one model or several, and the curves of their training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from d2_detr.checkpoint.checkpointer import load_model
from d2_detr.checkpoint.model_config import default_threshold
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.config import resolve_config
from d2_detr.data.annotations import ground_truth_detections, read_record_image
from d2_detr.data.datasets import load_datasets
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.data.sampling import sample_evenly
from d2_detr.inference.attention import predict_with_attention
from d2_detr.inference.folder import unique_stems
from d2_detr.inference.predictor import Predictor, check_threshold
from d2_detr.structures.conversions import detections_from_instances, detections_from_output
from d2_detr.structures.dataset import Dataset
from d2_detr.utils.errors import InputError
from d2_detr.visualization.attention import POINTS, Point, draw_attention
from d2_detr.visualization.curves import read_metrics, save_curves
from d2_detr.visualization.figures import save_png
from d2_detr.visualization.predictions import VIEW_SIDE, Comparison, View, resize_comparison, save_comparisons

from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

OVERVIEW_VIEWS = 6  # side by side
SINGLE_VIEW_SIDE = 640  # pixels of a view in the drawing of one image


def visualize(
    cfg: CfgNode,
    output: Path,
    *,
    number: int = 12,
    threshold: float | None = None,
    attention: int = 2,
    points: Sequence[Point] = POINTS,
) -> list[Path]:
    """Draw ground truth and predictions of MODEL.WEIGHTS for images of the first test set, and the model's attention.

    Args:
        number: number of images, evenly sampled.
        threshold: minimum score of a detection; None for the one of the checkpoint (see default_threshold).
        attention: number of images whose attention is drawn.
        points: x, y in [0, 1] of the image, from which the encoder's attention is drawn.

    Returns:
        The overview of all images, the curves of the training to whose folder the weights belong, and the attention.
    """
    check_threshold(threshold)
    for x, y in points:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise InputError(f"point {x} {y}: expected x and y in [0, 1] of the image")
    datasets = load_datasets(cfg, evaluation_only=True)
    cfg, dataset = resolve_config(cfg, datasets), datasets.test[0]
    checkpoint = read_checkpoint(cfg.MODEL.WEIGHTS)
    minimum = cfg.MODEL.DETR.SCORE_THRESH_TEST = default_threshold(checkpoint) if threshold is None else threshold
    model, mapper = load_model(cfg, checkpoint), DetrDatasetMapper(cfg, is_train=False)
    names = dataset.label_map.extended(cfg.MODEL.DETR.NUM_CLASSES).names
    records = sample_evenly(dataset.records, number)

    def predict(record: dict, image: np.ndarray) -> list[View]:
        with torch.no_grad():
            [result] = model([mapper(record)])
        return [View(f"predictions from {minimum:.2f}", detections_from_output(result), names)]

    overview = _write_comparisons(records, dataset, predict, output, masks=cfg.MODEL.MASK_ON)
    drawings, stems = [], _stems(records)
    for record in records[: max(attention, 0)]:
        instances, queries, weights = predict_with_attention(model, mapper(record), minimum)
        detections, image = detections_from_instances(instances), read_record_image(record)
        drawings.append(output / f"{stems[Path(record['file_name'])]}_attention.png")
        save_png(draw_attention(image, weights, detections, queries, names, points=points), drawings[-1])
    return [overview, *_write_curves([Path(cfg.MODEL.WEIGHTS).parent], output), *drawings]


def compare(
    cfg: CfgNode,
    weights: Sequence[str],
    output: Path,
    *,
    number: int = 12,
    threshold: float | None = None,
    opts: Sequence[str] = (),
) -> list[Path]:
    """Draw the ground truth and the predictions of several models side by side; see `visualize`.

    Args:
        weights: checkpoints of any layout, each with its own classes and config (see Predictor). The curves are those
            of the trainings to whose folders they belong.
        opts: KEY VALUE pairs that override the configs of all.
    """
    models = [Predictor(name, threshold=threshold, device=cfg.MODEL.DEVICE, opts=opts) for name in weights]
    titles = [f"{_title(name)}, from {model.threshold:.2f}" for name, model in zip(weights, models, strict=True)]
    dataset = load_datasets(cfg, evaluation_only=True).test[0]

    def predict(record: dict, image: np.ndarray) -> list[View]:
        pairs = zip(titles, models, strict=True)
        return [View(title, model(image).detections, model.class_names) for title, model in pairs]

    masks = dataset.things is not dataset or any(model.cfg.MODEL.MASK_ON for model in models)
    records = sample_evenly(dataset.records, number)
    overview = _write_comparisons(records, dataset, predict, output, masks=masks)
    return [overview, *_write_curves([Path(name).parent for name in weights], output)]


def _write_comparisons(
    records: Sequence[dict],
    dataset: Dataset,
    predict: Callable[[dict, np.ndarray], list[View]],
    output: Path,
    *,
    masks: bool,
) -> Path:
    """Write a drawing of each image, and an overview of all."""
    if not records:
        raise InputError("no images to draw: ask for at least 1")
    comparisons, stems, has_predictions = [], _stems(records), False
    for record in tqdm(records, "Drawing", unit=" images"):
        image = read_record_image(record)
        ground_truth = ground_truth_detections(record, masks=masks)
        views = [View("ground truth", ground_truth, dataset.label_map.names), *predict(record, image)]
        has_predictions |= any(len(view.detections.classes) for view in views[1:])
        path = Path(record["file_name"])
        comparison = Comparison(path.name, image, views)
        save_comparisons([comparison], output / f"{stems[path]}.png", view_side=SINGLE_VIEW_SIDE)
        comparisons.append(resize_comparison(comparison, VIEW_SIDE))
    if not has_predictions:
        logger.warning("No prediction reaches the score threshold; try a lower one")
    overview = output / "overview.png"
    save_comparisons(comparisons, overview, columns=max(1, OVERVIEW_VIEWS // len(comparisons[0].views)))
    return overview


def _write_curves(folders: Iterable[Path], output: Path) -> list[Path]:
    files = {_title(str(folder)): folder / "metrics.json" for folder in folders}
    runs = {name: read_metrics(file) for name, file in files.items() if file.is_file()}
    if runs:
        save_curves(runs, output / "curves.png")
    return [output / "curves.png"] if runs else []


def _stems(records: Sequence[dict]) -> dict[Path, str]:
    """Return unique names for the drawings of each image, by the path of the image."""
    return unique_stems([Path(record["file_name"]) for record in records])


def _title(weights: str) -> str:
    """The last two parts of a path, which usually identify a training."""
    return weights if "://" in weights else "/".join(Path(weights).parts[-2:])
