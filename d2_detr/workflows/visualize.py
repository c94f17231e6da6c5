"""Pictures of the test set with truth and predictions, of one model or several, and the curves of their training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from d2_detr.checkpoint.model_config import default_threshold
from d2_detr.data.datasets.classes import dataset_classes, names_of_rows
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.inference.attention import load_model, pixels_of, predict_with_attention, sample_evenly
from d2_detr.inference.folder import drawing_names
from d2_detr.inference.predictor import Predictor, check_threshold
from d2_detr.structures.conversions import detections_from_instances, detections_from_output, ground_truth_detections
from d2_detr.utils.errors import InputError
from d2_detr.visualization.attention import POINTS, draw_attention
from d2_detr.visualization.curves import read_metrics, save_curves
from d2_detr.visualization.figures import save_png
from d2_detr.visualization.predictions import Comparison, View, save_comparisons

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

logger = logging.getLogger(__name__)

OVERVIEW_VIEWS = 6  # beside each other


def visualize(
    cfg: CfgNode,
    output: Path,
    *,
    number: int = 12,
    threshold: float | None = None,
    attention: int = 2,
    points: Sequence[tuple[float, float]] = POINTS,
) -> list[Path]:
    """Write truth and predictions of MODEL.WEIGHTS for pictures of the first test set, and what the model attends to.

    Args:
        number: pictures, evenly spread over the test set.
        threshold: least score of what is shown; None for what the checkpoint says (see default_threshold).
        attention: of how many of them it is shown.
        points: x, y in [0, 1] of the picture, from which the encoder's attention is shown.

    Returns:
        The overview of all, the curves of the training whose folder the weights lie in, and the attention.
    """
    check_threshold(threshold)
    for x, y in points:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise InputError(f"point {x} {y}: expected x and y as shares of the picture, from 0 to 1")
    model, mapper = load_model(cfg), DetrDatasetMapper(cfg, is_train=False)
    threshold = default_threshold(cfg.MODEL.WEIGHTS) if threshold is None else threshold
    names = names_of_rows(cfg, cfg.DATASETS.TEST[0])
    records = sample_evenly(DatasetCatalog.get(cfg.DATASETS.TEST[0]), number)

    def found(record: dict, picture: np.ndarray) -> list[View]:
        with torch.no_grad():
            [result] = model([mapper(record)])
        return [View(f"found, from {threshold:.2f}", detections_from_output(result).above(threshold), names)]

    overview = _write_comparisons(records, names, found, output, masks=cfg.MODEL.MASK_ON)
    stems = _stems(records)
    looks = []
    for record in records[:attention]:
        instances, queries, weights = predict_with_attention(model, mapper(record), threshold)
        found_by = detections_from_instances(instances), queries
        looks.append(output / f"{stems[record['file_name']]}_attention.png")
        save_png(draw_attention(pixels_of(record), weights, *found_by, names, points=points), looks[-1])
    return [overview, *_write_curves([Path(cfg.MODEL.WEIGHTS).parent], output), *looks]


def compare(
    cfg: CfgNode,
    weights: Sequence[str],
    output: Path,
    *,
    number: int = 12,
    threshold: float | None = None,
    opts: Sequence[str] = (),
) -> list[Path]:
    """Write the truth and what several models find beside each other; as `visualize`, but for the attention.

    Args:
        weights: checkpoints of any layout, each with the classes and the config that come with it (see Predictor). The
            curves are those of the trainings whose folders they lie in.
        opts: KEY VALUE pairs that win over the configs of all.
    """
    given = {"threshold": threshold, "device": cfg.MODEL.DEVICE, "opts": opts}
    models = {name: Predictor(name, **given) for name in weights}
    titles = {name: f"{_title(name)}, from {model.threshold:.2f}" for name, model in models.items()}
    records = sample_evenly(DatasetCatalog.get(cfg.DATASETS.TEST[0]), number)

    def found(record: dict, picture: np.ndarray) -> list[View]:
        return [View(titles[name], model(picture).shown, model.class_names) for name, model in models.items()]

    is_panoptic = bool(records) and "segments_info" in records[0]  # stuff has no boxes to be drawn
    masks = is_panoptic or any(model.cfg.MODEL.MASK_ON for model in models.values())
    overview = _write_comparisons(records, dataset_classes(cfg.DATASETS.TEST[0]), found, output, masks=masks)
    return [overview, *_write_curves([Path(name).parent for name in weights], output)]


def _write_comparisons(
    records: Sequence[dict],
    names: Sequence[str],
    found: Callable[[dict, np.ndarray], list[View]],
    output: Path,
    *,
    masks: bool,
) -> Path:
    """An image for each picture, and one of all."""
    if not records:
        raise InputError("there are no pictures to be shown; ask for 1 or more")
    comparisons, stems = [], _stems(records)
    for record in tqdm(records, "Looking", unit=" pictures"):
        picture = pixels_of(record)
        truth = View("truth", ground_truth_detections(record, masks=masks), names)
        comparison = Comparison(Path(record["file_name"]).name, picture, [truth, *found(record, picture)])
        save_comparisons([comparison], output / f"{stems[record['file_name']]}.png")
        comparisons.append(comparison)
    if not any(len(view.objects.classes) for comparison in comparisons for view in comparison.views[1:]):
        logger.warning("Nothing has a score as high as the threshold; try a lower one")
    overview = output / "overview.png"
    views = len(comparisons[0].views)
    save_comparisons(comparisons, overview, columns=max(1, OVERVIEW_VIEWS // views))
    return overview


def _write_curves(folders: Iterable[Path], output: Path) -> list[Path]:
    files = {_title(str(folder)): folder / "metrics.json" for folder in folders}
    runs = {name: read_metrics(file) for name, file in files.items() if file.is_file()}
    if runs:
        save_curves(runs, output / "curves.png")
    return [output / "curves.png"] if runs else []


def _stems(records: Sequence[dict]) -> dict[str, str]:
    """Names for what is written of each picture, by the name of its file; no two are the same."""
    names = drawing_names([Path(record["file_name"]) for record in records])
    return {record["file_name"]: names[Path(record["file_name"])].removesuffix(".jpg") for record in records}


def _title(weights: str) -> str:
    """Enough of a path to know it by."""
    return weights if "://" in weights else "/".join(Path(weights).parts[-2:])
