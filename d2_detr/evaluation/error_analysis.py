"""The predictions of an evaluation beside the truth: what became of each, in every picture and in all of them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2_detr.data.datasets.classes import dataset_label_map
from d2_detr.evaluation.confusion import Taken, confusion
from d2_detr.evaluation.matching import LEAST_F1, Curve, Outcome, Outcomes, curve, outcomes
from d2_detr.structures.conversions import detections_from_results, ground_truth_detections
from d2_detr.structures.detections import Detections
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.files import read_json

from detectron2.data import DatasetCatalog


@dataclass(frozen=True)
class ImageErrors:
    """A picture as Detectron2's dict, with what became of its predictions above the threshold, and of its objects."""

    record: dict
    results: Sequence[dict]  # all of its predictions, in COCO's format
    outcomes: Outcomes
    confusion: Counter[Taken]


@dataclass(frozen=True)
class ErrorAnalysis:
    """The worst pictures first; the curves are of all predictions.

    The threshold is the best (see best_threshold). Where nothing is found at any score it is a half, so that one sees
    what is there instead.
    """

    pictures: Sequence[ImageErrors]
    threshold: float
    label_map: LabelMap
    of_classes: Sequence[Curve]
    of_all: Curve

    @property
    def confusion(self) -> Counter[Taken]:
        """Of all pictures."""
        total: Counter[Taken] = Counter()
        for picture in self.pictures:  # added up in place: a sum would copy the total for each
            total.update(picture.confusion)
        return total

    def predicted(self, picture: ImageErrors, *, masks: bool) -> Detections:
        return _above(self.threshold, picture.results, self.label_map, masks=masks)


def analyze_errors(dataset: Sequence[dict], label_map: LabelMap, results: Sequence[dict]) -> ErrorAnalysis:
    """
    Args:
        dataset: Detectron2's dicts, with instances.
        results: in COCO's results format, of all pictures.
    """
    of_picture = _by_picture(results)
    of_classes, of_all = _curves(dataset, label_map, of_picture)
    threshold = 0.5 if (best := best_threshold(of_all)) is None else best
    pictures = []
    for record in dataset:
        found = of_picture[record["image_id"]]
        truth, shown = ground_truth_detections(record, masks=False), _above(threshold, found, label_map, masks=False)
        given = outcomes(truth, shown)
        pictures.append(ImageErrors(record, found, given, confusion(truth, shown, given)))
    pictures.sort(key=lambda picture: -picture.outcomes.mistakes)
    return ErrorAnalysis(pictures, threshold, label_map, of_classes, of_all)


def best_threshold(of_all: Curve) -> float | None:
    """The score with the best F1, cut off to two digits, so that it can be asked for; None where nothing is found."""
    return math.floor(round(100 * of_all.best_threshold, 6)) / 100 if of_all.f1.any() else None


def best_threshold_of(dataset_name: str, results_file: Path) -> float | None:
    """Of the predictions for a dataset of Detectron2's catalog, in COCO's results format; None also where hardly
    anything is found, so that no threshold is of use."""
    dataset, label_map = DatasetCatalog.get(dataset_name), dataset_label_map(dataset_name)
    _, of_all = _curves(dataset, label_map, _by_picture(read_json(results_file)))
    return best_threshold(of_all) if of_all.best_f1 >= LEAST_F1 else None


def _by_picture(results: Sequence[dict]) -> Mapping[object, list[dict]]:
    of_picture = defaultdict(list)
    for result in results:
        of_picture[result["image_id"]].append(result)
    return of_picture


def _curves(
    dataset: Sequence[dict], label_map: LabelMap, of_picture: Mapping[object, list[dict]]
) -> tuple[list[Curve], Curve]:
    """Of each class, and of all together."""
    classes, scores, found = [np.zeros(0, int)], [np.zeros(0)], [np.zeros(0, bool)]
    num_objects = np.zeros(len(label_map), int)
    for record in dataset:
        truth = ground_truth_detections(record, masks=False)
        predicted = detections_from_results(of_picture[record["image_id"]], label_map, masks=False)
        given = np.array(outcomes(truth, predicted).of_predictions, object)
        counts = given != Outcome.IN_CROWD
        classes.append(predicted.classes[counts])
        scores.append(predicted.scores[counts])
        found.append(given[counts] == Outcome.FOUND)
        num_objects += np.bincount(truth.classes[~truth.is_crowd], minlength=len(label_map))
    classes, scores, found = map(np.concatenate, (classes, scores, found))
    of_classes = [
        curve(scores[classes == label], found[classes == label], int(num_objects[label]))
        for label in range(len(label_map))
    ]
    return of_classes, curve(scores, found, int(num_objects.sum()))


def _above(threshold: float, results: Sequence[dict], label_map: LabelMap, *, masks: bool) -> Detections:
    sure = [result for result in results if result["score"] >= threshold]
    return detections_from_results(sure, label_map, masks=masks)
