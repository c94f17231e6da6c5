"""Which class is taken for which."""

from __future__ import annotations

import numpy as np

from d2_detr.evaluation.outcomes import FOUND_IOU, Outcome, Outcomes, overlaps
from d2_detr.objects import Objects


def confusion(truth: Objects, predicted: Objects, given: Outcomes, num_classes: int) -> np.ndarray:
    """Counts (K + 1, K + 1) of a picture: rows are the classes of the objects, columns those that they were taken for.

    The last row is of predictions that are of no object, or of one that has its prediction already, the last column of
    what was missed. An object that is found is on the diagonal; one that is not belongs to the surest prediction of
    another class that overlaps it with an IoU of 0.5, if there is one. Crowds, and what lies in them, are left out.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), int)
    iou, _ = overlaps(predicted.boxes_xyxy, truth.boxes_xyxy)
    missed = np.array([outcome is Outcome.MISSED for outcome in given.of_objects], bool)
    for label, outcome in zip(truth.classes, given.of_objects, strict=True):
        counts[label, label] += outcome is Outcome.FOUND
    for i in np.argsort(-predicted.scores, kind="stable"):
        if given.of_predictions[i] in (Outcome.FOUND, Outcome.IN_CROWD):
            continue
        candidates = np.where(missed, iou[i], 0)
        row = num_classes
        if candidates.max(initial=0) >= FOUND_IOU:
            row = truth.classes[candidates.argmax()]
            missed[candidates.argmax()] = False
        counts[row, predicted.classes[i]] += 1
    for label in truth.classes[missed]:
        counts[label, num_classes] += 1
    return counts
