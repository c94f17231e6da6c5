"""Panoptic quality (Kirillov et al., Panoptic Segmentation, 2019), in percent.

A true and a predicted segment of the same class match if they overlap with an IoU above 0.5, of which there is one pair
at most. The classes that occur in truth or prediction count alike in the mean of

    PQ = SQ * RQ    SQ = mean IoU of the matches (0 without any)    RQ = TP / (TP + FP/2 + FN/2)

Pixels that are void in the truth belong to no union; crowds are not to be found; and a predicted segment that matches
nothing is forgiven where void and crowds of its class make up more than half of it. COCO's own code does the same, but
looks at one crowd of a class only.

Shape shorthand: H, W of the picture, K classes.
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

from d2_detr.data.datasets.classes import dataset_label_map
from d2_detr.data.formats.coco_panoptic import VOID, read_ids, read_panoptic, write_ids
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import write_json

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

logger = logging.getLogger(__name__)

# Columns of the counts (K, 4): the sum of the matches' IoU, matches, predictions and truths without a match.
IOU, TP, FP, FN = range(4)

Segment = Mapping[str, Any]


def compare(
    true_ids: np.ndarray,
    true_segments: Sequence[Segment],
    predicted_ids: np.ndarray,
    predicted_segments: Sequence[Segment],
    num_classes: int,
) -> np.ndarray:
    """Match the segments of a picture.

    Args:
        true_ids, predicted_ids: (H, W) integers, id of the segment of each pixel; 0 is void.
        true_segments, predicted_segments: `id` and `category_id` (contiguous) of each; true ones with `iscrowd`.

    Returns:
        (K, 4), float64, the columns IOU, TP, FP, FN.

    Raises:
        ValueError: the two differ in size.
    """
    if true_ids.shape != predicted_ids.shape:
        raise ValueError(f"a prediction of size {predicted_ids.shape}, the truth is of size {true_ids.shape}")
    overlaps = _overlaps(true_ids, predicted_ids)
    truths = {segment["id"]: segment for segment in true_segments if not segment["iscrowd"]}
    predictions = {segment["id"]: segment for segment in predicted_segments}
    true_areas, predicted_areas = Counter(), Counter()
    for (true_id, predicted_id), pixels in overlaps.items():
        true_areas[true_id] += pixels
        predicted_areas[predicted_id] += pixels

    counts = np.zeros((num_classes, 4))
    for (true_id, predicted_id), pixels in overlaps.items():
        if true_id not in truths or predicted_id not in predictions:
            continue
        union = true_areas[true_id] + predicted_areas[predicted_id] - pixels - overlaps[VOID, predicted_id]
        label = predictions[predicted_id]["category_id"]
        if truths[true_id]["category_id"] == label and 2 * pixels > union:
            counts[label, [IOU, TP]] += pixels / union, 1
            del truths[true_id], predictions[predicted_id]

    for truth in truths.values():
        counts[truth["category_id"], FN] += 1
    for predicted_id, prediction in predictions.items():
        label = prediction["category_id"]
        crowds = [s["id"] for s in true_segments if s["iscrowd"] and s["category_id"] == label]
        forgiven = sum(overlaps[i, predicted_id] for i in (VOID, *crowds))
        counts[label, FP] += 2 * forgiven <= predicted_areas[predicted_id]
    return counts


def _overlaps(true_ids: np.ndarray, predicted_ids: np.ndarray) -> Counter[tuple[int, int]]:
    """Number of pixels of each pair of ids; 0 for pairs that do not occur."""
    pairs, pixels = np.unique(true_ids.astype(np.int64) << 32 | predicted_ids, return_counts=True)
    return Counter({divmod(pair, 1 << 32): n for pair, n in zip(pairs.tolist(), pixels.tolist(), strict=True)})


def summary(counts: np.ndarray, names: Sequence[str], things: Collection[int]) -> dict[str, float]:
    """Panoptic quality, in percent, of counts (K, 4).

    Returns:
        PQ, SQ, RQ over all classes, with _th over things, with _st over stuff, and PQ-<name> of each class. NaN stands
        for classes that do not occur.
    """
    iou, tp, fp, fn = counts.T
    occurs = tp + fp + fn > 0
    with np.errstate(invalid="ignore"):  # 0 / 0 of what does not occur
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
    """Panoptic quality of what a model returns as "panoptic_seg", on a registered panoptic dataset."""

    def __init__(self, dataset_name: str, output_dir: str | Path | None = None):
        """With `output_dir`, the predictions are written there in COCO's panoptic format: predictions.json and PNGs in
        panoptic_predictions/.

        Raises:
            FileNotFoundError, InputError: see read_panoptic.
        """
        self._label_map = dataset_label_map(dataset_name)
        self._contiguous_ids = {category_id: i for i, category_id in enumerate(self._label_map.ids)}
        metadata = MetadataCatalog.get(dataset_name)
        self._things = set(metadata.thing_dataset_id_to_contiguous_id.values())
        self._truth = read_panoptic(metadata.panoptic_json)
        self._annotations = {annotation["image_id"]: annotation for annotation in self._truth.annotations}
        self._panoptic_root = Path(metadata.panoptic_root)
        self._output_dir = Path(output_dir) if output_dir else None
        self.reset()

    def reset(self) -> None:
        self._counts = np.zeros((len(self._label_map), 4))
        self._predictions: list[dict[str, Any]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Compare each output with the truth of the `image_id` of its input.

        Raises:
            FileNotFoundError, InputError: the dataset has no such picture, or its PNG is missing or damaged.
        """
        for image, output in zip(inputs, outputs, strict=True):
            segments, info = output["panoptic_seg"]
            self._process(image["image_id"], segments.cpu().numpy(), info)

    def _process(self, image_id: int | str, ids: np.ndarray, segments: Sequence[Segment]) -> None:
        if image_id not in self._annotations:
            raise InputError(f"{self._truth.path}: no annotation of the picture with image_id {image_id!r}; add it")
        truth, image = self._annotations[image_id], self._truth.images[image_id]
        true_ids = read_ids(self._panoptic_root / truth["file_name"], annotated_wh=(image["width"], image["height"]))
        true_segments = [s | {"category_id": self._contiguous_ids[s["category_id"]]} for s in truth["segments_info"]]
        self._counts += compare(true_ids, true_segments, ids, segments, len(self._label_map))
        if self._output_dir:
            write_ids(ids, self._output_dir / "panoptic_predictions" / truth["file_name"])
            original = [{"id": s["id"], "category_id": self._label_map.ids[s["category_id"]]} for s in segments]
            prediction = {"image_id": image_id, "file_name": truth["file_name"], "segments_info": original}
            self._predictions.append(prediction)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """{"panoptic_seg": see summary}, of the pictures of all processes; empty in all but the main process."""
        gathered = comm.gather((self._counts, self._predictions))
        if not comm.is_main_process():
            return {}
        counts = sum(counts for counts, _ in gathered)
        if self._output_dir:
            predictions = [prediction for _, predictions in gathered for prediction in predictions]
            write_json({"annotations": predictions}, self._output_dir / "predictions.json")
        result = summary(counts, self._label_map.names, self._things)
        logger.info("Panoptic quality:\n%s", _table(result))
        return {"panoptic_seg": result}


def _table(result: Mapping[str, float]) -> str:
    rows = [
        [group, *(result[measure + suffix] for measure in ("PQ", "SQ", "RQ"))]
        for group, suffix in {"all": "", "things": "_th", "stuff": "_st"}.items()
    ]
    return tabulate(rows, ("", "PQ", "SQ", "RQ"), tablefmt="simple", floatfmt=".2f")
