"""COCO's average precision class by class, and by the size of the objects."""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

AREAS = ("all", "small", "medium", "large")  # COCO's: below 32 x 32 pixels, up to 96 x 96, above


class Scores(NamedTuple):
    """Of 100; NaN where there is no such object."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float


def class_scores(annotations: Path, results: list[dict], iou_type: str) -> dict[int, Scores]:
    """The scores of each category of an annotation file, by category id.

    Their mean over the classes is what COCOEvaluator reports: sizes of masks are their own areas, not those of boxes.

    Args:
        annotations: in COCO's format.
        results: in COCO's results format, with the ids of the annotations.
        iou_type: "bbox" or "segm".
    """
    unused = "bbox" if iou_type == "segm" else "segmentation"  # pycocotools takes the area from what it sees first
    copies = [{key: value for key, value in result.items() if key != unused} for result in results]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(copies) if copies else COCO(), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
    # (T, R, K, A, M): IoU thresholds, recalls, categories, areas, and most detections of a picture
    precision = evaluation.eval["precision"][..., -1]
    return {int(category_id): _scores(precision[:, :, k]) for k, category_id in enumerate(evaluation.params.catIds)}


def mean_scores(scores: dict[int, Scores]) -> Scores:
    """Over the classes that have such objects."""
    columns = zip(*scores.values(), strict=True)
    return Scores(*(float(np.mean([v for v in c if not math.isnan(v)] or [math.nan])) for c in columns))


def _scores(precision: np.ndarray) -> Scores:
    """Of a class, from its precision (T, R, A); -1 stands for no object."""

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean() * 100) if (values > -1).any() else math.nan

    at_50, at_75 = 0, 5  # IoU thresholds are 0.5, 0.55, ...
    by_size = (mean(precision[:, :, AREAS.index(area)]) for area in AREAS[1:])
    return Scores(mean(precision[..., 0]), mean(precision[at_50, :, 0]), mean(precision[at_75, :, 0]), *by_size)
