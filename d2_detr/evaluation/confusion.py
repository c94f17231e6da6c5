"""Which class is taken for which."""

from __future__ import annotations

from collections import Counter

import numpy as np

from d2_detr.evaluation.matching import FOUND_IOU, Outcome, Outcomes, overlaps
from d2_detr.structures.detections import Detections

Taken = tuple[int | None, int | None]  # the class of an object, and that which it was taken for


def confusion(truth: Detections, predicted: Detections, given: Outcomes) -> Counter[Taken]:
    """How often in a picture an object of one class was taken for one of another.

    None as what it was taken for says that it was missed, None as the object that a prediction is of none, or of one
    that has its prediction already. An object that is not found belongs to the surest prediction of another class that
    overlaps it with an IoU of 0.5, if there is one. Crowds, and what lies in them, are left out.
    """
    iou, _ = overlaps(predicted.boxes_xyxy, truth.boxes_xyxy)
    missed = np.array([outcome is Outcome.MISSED for outcome in given.of_objects], bool)
    labels, objects = predicted.classes.tolist(), truth.classes.tolist()
    counts: Counter[Taken] = Counter()
    counts.update((objects[i], objects[i]) for i, outcome in enumerate(given.of_objects) if outcome is Outcome.FOUND)
    for i in np.argsort(-predicted.scores, kind="stable"):
        if given.of_predictions[i] in (Outcome.FOUND, Outcome.IN_CROWD):
            continue
        candidates = np.where(missed, iou[i], 0)
        taken = None
        if candidates.max(initial=0) >= FOUND_IOU:
            taken = objects[candidates.argmax()]
            missed[candidates.argmax()] = False
        counts[taken, labels[i]] += 1
    counts.update((objects[i], None) for i in missed.nonzero()[0])
    return counts
