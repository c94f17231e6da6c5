"""COCO's average precision of each class, also by object size."""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


class AveragePrecision(NamedTuple):
    """AP in percent; NaN without an object of that size: small up to 32 x 32 pixels, medium up to 96 x 96."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float


def average_precision_per_class(annotations: Path, results: list[dict], iou_type: str) -> dict[int, AveragePrecision]:
    """Compute the AP of each category, by category id.

    Its mean over the classes is what COCOEvaluator reports. The size of a mask is its own area, not that of its box.

    Args:
        annotations: file in COCO format.
        results: predictions in COCO's results format, with the category ids of the annotations.
        iou_type: "bbox" or "segm".
    """
    unused = "bbox" if iou_type == "segm" else "segmentation"  # pycocotools takes the area from the first it finds
    copies = [{key: value for key, value in result.items() if key != unused} for result in results]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        ground_truth = COCO(str(annotations))
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(copies) if copies else COCO(), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
    # (T, R, K, A, M): IoU thresholds, recalls, categories, areas, and the maximum number of detections per image
    precision = evaluation.eval["precision"][..., -1]
    return {int(category_id): _average(precision[:, :, k]) for k, category_id in enumerate(evaluation.params.catIds)}


def mean_average_precision(per_class: dict[int, AveragePrecision]) -> AveragePrecision:
    """Average each measure over the classes for which it is defined."""
    columns = zip(*per_class.values(), strict=True)
    return AveragePrecision(*(float(np.mean([v for v in c if not math.isnan(v)] or [math.nan])) for c in columns))


def _average(precision: np.ndarray) -> AveragePrecision:
    """Average the precision (T, R, A) of a class, in which -1 means that there is no object."""

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean() * 100) if (values > -1).any() else math.nan

    at_50, at_75 = 0, 5  # IoU thresholds are 0.5, 0.55, ...
    ap, *by_size = (mean(precision[..., area]) for area in range(4))  # all, small, medium, large
    return AveragePrecision(ap, mean(precision[at_50, :, 0]), mean(precision[at_75, :, 0]), *by_size)
