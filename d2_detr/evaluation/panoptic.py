"""Panoptic quality (Kirillov et al., Panoptic Segmentation, 2019), in percent.

A true and a predicted segment of the same class match if their IoU exceeds 0.5; each has at most one match. The mean is
taken over the classes that occur in ground truth or predictions:

    PQ = SQ * RQ    SQ = mean IoU of the matches (0 without any)    RQ = TP / (TP + FP/2 + FN/2)

Void pixels of the ground truth belong to no union. Crowds need not be predicted. A predicted segment without a match is
no false positive if void and crowds of its class cover more than half of it. COCO's own code does the same, except that
it considers only one crowd of each class.

Shape shorthand: H, W of the image, K classes.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from d2_detr.data.annotations import annotated_wh
from d2_detr.data.formats.coco_panoptic import VOID, read_ids, write_ids
from d2_detr.structures.dataset import Dataset
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import write_json

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

logger = logging.getLogger(__name__)

# Columns of the counts (K, 4): sum of the IoU of the matches, matches, unmatched predictions, unmatched objects.
IOU, TP, FP, FN = range(4)

Segment = Mapping[str, Any]


def match_segments(
    gt_ids: np.ndarray,
    gt_segments: Sequence[Segment],
    pred_ids: np.ndarray,
    pred_segments: Sequence[Segment],
    num_classes: int,
) -> np.ndarray:
    """Match the predicted segments of an image with the true ones.

    Args:
        gt_ids, pred_ids: (H, W) integers, segment id of each pixel; 0 is void.
        gt_segments, pred_segments: `id` and contiguous `category_id` of each segment; `iscrowd` of the true ones.

    Returns:
        (K, 4), float64: the columns IOU, TP, FP, FN.

    Raises:
        ValueError: the sizes differ.
    """
    if gt_ids.shape != pred_ids.shape:
        raise ValueError(f"prediction of size {pred_ids.shape}, expected {gt_ids.shape} as in the ground truth")
    overlaps = _count_overlaps(gt_ids, pred_ids)
    gt = {segment["id"]: segment for segment in gt_segments if not segment.get("iscrowd", 0)}
    pred = {segment["id"]: segment for segment in pred_segments}
    gt_areas: Counter[int] = Counter()
    pred_areas: Counter[int] = Counter()
    for (gt_id, pred_id), pixels in overlaps.items():
        gt_areas[gt_id] += pixels
        pred_areas[pred_id] += pixels

    counts = np.zeros((num_classes, 4))
    for (gt_id, pred_id), pixels in overlaps.items():
        if gt_id not in gt or pred_id not in pred:
            continue
        union = gt_areas[gt_id] + pred_areas[pred_id] - pixels - overlaps[VOID, pred_id]
        label = pred[pred_id]["category_id"]
        if gt[gt_id]["category_id"] == label and 2 * pixels > union:
            counts[label, [IOU, TP]] += pixels / union, 1
            del gt[gt_id], pred[pred_id]

    for segment in gt.values():
        counts[segment["category_id"], FN] += 1
    for pred_id, segment in pred.items():
        label = segment["category_id"]
        crowds = [s["id"] for s in gt_segments if s.get("iscrowd", 0) and s["category_id"] == label]
        ignored = sum(overlaps[i, pred_id] for i in (VOID, *crowds))
        counts[label, FP] += 2 * ignored <= pred_areas[pred_id]
    return counts


def _count_overlaps(gt_ids: np.ndarray, pred_ids: np.ndarray) -> Counter[tuple[int, int]]:
    """Count the pixels of each pair of ids; 0 for pairs that do not occur."""
    pairs, pixels = np.unique(gt_ids.astype(np.int64) << 32 | pred_ids, return_counts=True)
    return Counter({divmod(pair, 1 << 32): n for pair, n in zip(pairs.tolist(), pixels.tolist(), strict=True)})


def summarize_counts(counts: np.ndarray, names: Sequence[str], things: Collection[int]) -> dict[str, float]:
    """Compute panoptic quality, in percent, from counts (K, 4).

    Returns:
        PQ, SQ, RQ over all classes, with _th over things and with _st over stuff; PQ-<name> of each class. NaN for
        classes that do not occur.
    """
    iou, tp, fp, fn = counts.T
    occurs = tp + fp + fn > 0
    with np.errstate(invalid="ignore"):  # 0 / 0 for classes that do not occur
        recognition = 100 * tp / (tp + fp / 2 + fn / 2)
    segmentation = 100 * iou / np.maximum(tp, 1)
    quality = {"PQ": segmentation * recognition / 100, "SQ": segmentation, "RQ": recognition}
    is_thing = np.isin(np.arange(len(counts)), list(things))
    result = {}
    for suffix, group in {"": occurs, "_th": occurs & is_thing, "_st": occurs & ~is_thing}.items():
        for measure, values in quality.items():
            result[measure + suffix] = float(values[group].mean()) if group.any() else math.nan
    return result | {f"PQ-{name}": float(value) for name, value in zip(names, quality["PQ"], strict=True)}


class PanopticEvaluator(DatasetEvaluator):
    """Measure the panoptic quality of what a model returns as "panoptic_seg"."""

    def __init__(self, dataset: Dataset, output_dir: str | Path | None = None):
        """Initialize an evaluator.

        Args:
            dataset: with panoptic annotations.
            output_dir: folder for the predictions in COCO's panoptic format, predictions.json and the PNGs in
                panoptic_predictions/; None does not write them.
        """
        self._label_map = dataset.label_map
        self._metadata = dataset.metadata
        self._records = {record["image_id"]: record for record in dataset.records}
        self._output_dir = Path(output_dir) if output_dir else None
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._counts = np.zeros((len(self._label_map), 4))
        self._predictions: list[dict[str, Any]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Compare each output with the ground truth of the `image_id` of its input.

        Raises:
            FileNotFoundError, InputError: the dataset has no such image, or its PNG is missing or damaged.
        """
        for image, output in zip(inputs, outputs, strict=True):
            segments, info = output["panoptic_seg"]
            self._process(image["image_id"], segments.cpu().numpy(), info)

    def _process(self, image_id: int | str, ids: np.ndarray, segments: Sequence[Segment]) -> None:
        if image_id not in self._records:
            raise InputError(f"{self._metadata.panoptic_json}: no annotation for image_id {image_id!r}; add it")
        record = self._records[image_id]
        png = record["pan_seg_file_name"]
        gt_ids = read_ids(png, annotated_wh=annotated_wh(record))
        self._counts += match_segments(gt_ids, record["segments_info"], ids, segments, len(self._label_map))
        if self._output_dir:
            name = Path(png).relative_to(self._metadata.panoptic_root).as_posix()
            write_ids(ids, self._output_dir / "panoptic_predictions" / name)
            original = [{"id": s["id"], "category_id": self._label_map.ids[s["category_id"]]} for s in segments]
            self._predictions.append({"image_id": image_id, "file_name": name, "segments_info": original})

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Compute panoptic quality over the images of all processes.

        Returns:
            {"panoptic_seg": see summarize_counts}; empty in all processes but the main one.
        """
        gathered = comm.gather((self._counts, self._predictions))
        if not comm.is_main_process():
            return {}
        counts = sum(counts for counts, _ in gathered)
        if self._output_dir:
            predictions = [prediction for _, predictions in gathered for prediction in predictions]
            write_json({"annotations": predictions}, self._output_dir / "predictions.json")
        things = self._metadata.thing_dataset_id_to_contiguous_id.values()
        result = summarize_counts(counts, self._label_map.names, things)
        logger.info("Panoptic quality:\n%s", _table(result))
        return {"panoptic_seg": result}


def _table(result: Mapping[str, float]) -> str:
    rows = [
        [group, *(result[measure + suffix] for measure in ("PQ", "SQ", "RQ"))]
        for group, suffix in {"all": "", "things": "_th", "stuff": "_st"}.items()
    ]
    return tabulate(rows, ("", "PQ", "SQ", "RQ"), tablefmt="simple", floatfmt=".2f")
