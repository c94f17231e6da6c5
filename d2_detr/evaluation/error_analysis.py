"""Error analysis of each image and of a whole dataset."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2_detr.data.annotations import ground_truth_detections
from d2_detr.evaluation.confusion import ClassPair, count_confusions
from d2_detr.evaluation.matching import ImageOutcomes, Outcome, match_detections
from d2_detr.evaluation.score_curves import MIN_USEFUL_F1, ScoreCurve, compute_score_curve
from d2_detr.structures.conversions import detections_from_results
from d2_detr.structures.dataset import Dataset
from d2_detr.structures.detections import Detections
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.files import read_json

FALLBACK_THRESHOLD = 0.5  # for a model without a true positive at any score


@dataclass(frozen=True)
class ImageErrors:
    """The outcomes in an image at the threshold of the analysis.

    Attributes:
        record: Detectron2's dataset dict.
        results: all predictions for the image, in COCO's results format.
        outcomes: of its objects, and of its predictions that reach the threshold.
        confusion: pairs of true and predicted class.
    """

    record: dict
    results: Sequence[dict]
    outcomes: ImageOutcomes
    confusion: Counter[ClassPair]


@dataclass(frozen=True)
class ErrorAnalysis:
    """The errors in the images of a dataset.

    Attributes:
        images: those with the most errors first.
        threshold: the best of `curve`, or FALLBACK_THRESHOLD, so that the predictions of a poor model can be seen.
        label_map: the classes.
        class_curves: score curve of each class, over all predictions.
        curve: of all classes together.
    """

    images: Sequence[ImageErrors]
    threshold: float
    label_map: LabelMap
    class_curves: Sequence[ScoreCurve]
    curve: ScoreCurve

    @property
    def confusion(self) -> Counter[ClassPair]:
        """Pairs of true and predicted class in all images."""
        total: Counter[ClassPair] = Counter()
        for image in self.images:  # in place: sum() would copy the total for every image
            total.update(image.confusion)
        return total

    def predictions(self, image: ImageErrors, *, masks: bool) -> Detections:
        """Return the predictions for an image that reach the threshold."""
        return detections_from_results(_reaching(self.threshold, image.results), self.label_map, masks=masks)


def analyze_errors(records: Sequence[dict], label_map: LabelMap, results: Sequence[dict]) -> ErrorAnalysis:
    """Analyze the errors of a model.

    Args:
        records: Detectron2's dataset dicts, with instances.
        label_map: the classes of the dataset.
        results: the predictions for all images, in COCO's results format.
    """
    results_per_image = _group_by_image(results)
    class_curves, curve = _score_curves(records, label_map, results_per_image)
    threshold = FALLBACK_THRESHOLD if curve.best_threshold is None else curve.best_threshold
    images = []
    for record in records:
        image_results = results_per_image[record["image_id"]]
        ground_truth = ground_truth_detections(record, masks=False)
        predictions = detections_from_results(_reaching(threshold, image_results), label_map, masks=False)
        outcomes = match_detections(ground_truth, predictions)
        confusion = count_confusions(ground_truth, predictions, outcomes)
        images.append(ImageErrors(record, image_results, outcomes, confusion))
    images.sort(key=lambda image: -image.outcomes.num_errors)
    return ErrorAnalysis(images, threshold, label_map, class_curves, curve)


def best_threshold(dataset: Dataset, results_file: Path) -> float | None:
    """Find the score threshold with the highest F1.

    Args:
        results_file: the predictions for the dataset, in COCO's results format.

    Returns:
        The threshold, rounded down to two digits; None if no threshold makes the model useful.
    """
    things = dataset.things
    _, curve = _score_curves(things.records, things.label_map, _group_by_image(read_json(results_file)))
    return curve.best_threshold if curve.best_f1 >= MIN_USEFUL_F1 else None


def _group_by_image(results: Sequence[dict]) -> Mapping[object, list[dict]]:
    results_per_image = defaultdict(list)
    for result in results:
        results_per_image[result["image_id"]].append(result)
    return results_per_image


def _reaching(threshold: float, results: Sequence[dict]) -> list[dict]:
    return [result for result in results if result["score"] >= threshold]


def _score_curves(
    records: Sequence[dict], label_map: LabelMap, results_per_image: Mapping[object, list[dict]]
) -> tuple[list[ScoreCurve], ScoreCurve]:
    """Compute the curve of each class, and that of all classes together."""
    classes, scores, hits = [np.zeros(0, int)], [np.zeros(0)], [np.zeros(0, bool)]
    num_gt: Counter[int] = Counter()
    for record in records:
        results = results_per_image[record["image_id"]]
        ground_truth = ground_truth_detections(record, masks=False)
        predictions = detections_from_results(results, label_map, masks=False)
        outcomes = match_detections(ground_truth, predictions)
        pred_outcomes = np.array(outcomes.pred, object)
        counted = pred_outcomes != Outcome.CROWD
        classes.append(predictions.classes[counted])
        scores.append(np.array([result["score"] for result in results], float)[counted])
        hits.append(pred_outcomes[counted] == Outcome.TRUE_POSITIVE)
        gt = zip(ground_truth.classes.tolist(), outcomes.gt, strict=True)
        num_gt.update(label for label, outcome in gt if outcome is not Outcome.CROWD)
    all_classes, all_scores, all_hits = map(np.concatenate, (classes, scores, hits))
    class_curves = [
        compute_score_curve(all_scores[all_classes == label], all_hits[all_classes == label], num_gt[label])
        for label in range(len(label_map))
    ]
    return class_curves, compute_score_curve(all_scores, all_hits, num_gt.total())
