"""Which class is predicted for which."""

from __future__ import annotations

from collections import Counter

import numpy as np

from d2_detr.evaluation.matching import MATCH_IOU, ImageOutcomes, Outcome, box_overlaps, score_order
from d2_detr.structures.detections import Detections

ClassPair = tuple[int | None, int | None]  # ground truth and prediction; None is background


def count_confusions(ground_truth: Detections, predictions: Detections, outcomes: ImageOutcomes) -> Counter[ClassPair]:
    """Count the pairs of true and predicted class in an image.

    A missed object pairs with the highest-scoring prediction of another class whose IoU with it is at least 0.5, or
    with None. A prediction that pairs with no object pairs with None. Crowds, and predictions inside them, are left
    out.
    """
    iou, _ = box_overlaps(predictions.boxes_xyxy, ground_truth.boxes_xyxy)
    is_missed = np.array([outcome is Outcome.MISSED for outcome in outcomes.gt], bool)
    gt_classes, pred_classes = ground_truth.classes.tolist(), predictions.classes.tolist()
    pairs: Counter[ClassPair] = Counter()
    pairs.update((gt_classes[i],) * 2 for i, outcome in enumerate(outcomes.gt) if outcome is Outcome.TRUE_POSITIVE)
    for i in score_order(predictions):
        if outcomes.pred[i] in (Outcome.TRUE_POSITIVE, Outcome.CROWD):
            continue
        candidates = np.where(is_missed, iou[i], 0)
        gt_class = None
        if candidates.max(initial=0) >= MATCH_IOU:
            gt_class = gt_classes[candidates.argmax()]
            is_missed[candidates.argmax()] = False
        pairs[gt_class, pred_classes[i]] += 1
    pairs.update((gt_classes[i], None) for i in is_missed.nonzero()[0])
    return pairs
