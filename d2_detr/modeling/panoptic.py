"""Panoptic segmentation from the masks of queries: every pixel belongs to one thing or to one kind of stuff (paper,
section 4.4).

Shape shorthand: N queries, K classes (index K is no-object), h, w of the mask logits, H, W of the picture.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from d2_detr.modeling.segmentation import resize_logits

SMALLEST_AREA = 4  # pixels: a segment of so few is none, as in native DETR

Segmentation = tuple[Tensor, list[dict[str, Any]]]


def panoptic_segmentation(
    probabilities: Tensor,
    mask_logits: Tensor,
    size_hw: tuple[int, int],
    *,
    stuff_classes: Collection[int],
    score_threshold: float = 0.85,
) -> Segmentation:
    """Give every pixel to the query whose mask is the strongest there, in Detectron2's panoptic format.

    Queries of the same stuff class make one segment. What is left of a segment may be too small; then it is taken away,
    and its pixels go to the strongest of the others. (Native DETR takes away with them what it has just merged, and
    lets the other segments have those pixels.)

    Args:
        probabilities: (N, K + 1). Only queries that see an object with more than `score_threshold` take part.
        mask_logits: (N, h, w), of the whole picture.
        size_hw: height and width of the segmentation.
        stuff_classes: the classes of which a picture has one segment at most.

    Returns:
        segments (H, W), int32: id of the segment of each pixel, from 1, and 0 everywhere if nothing is found; and of
        each segment `id`, `isthing`, `category_id` (the class), `score` (of its surest query), `area` in pixels.
    """
    scores, classes = probabilities.max(-1)
    seen = (classes < probabilities.shape[-1] - 1) & (scores > score_threshold)
    scores, classes, mask_logits = scores[seen].tolist(), classes[seen].tolist(), mask_logits[seen]
    first_of_stuff = {label: classes.index(label) for label in stuff_classes if label in classes}
    segment_of = torch.tensor([first_of_stuff.get(label, i) for i, label in enumerate(classes)], dtype=torch.int64)

    taking_part = torch.ones(len(classes), dtype=torch.bool)
    while True:
        owner = _strongest(mask_logits, taking_part, segment_of, size_hw)
        areas = torch.bincount(owner.flatten(), minlength=len(classes) + 1)[1:].cpu()
        too_small = taking_part & (areas[segment_of] <= SMALLEST_AREA)
        if not too_small.any():
            break
        taking_part &= ~too_small

    segments = torch.zeros_like(owner, dtype=torch.int32)
    info = []
    for i in sorted(set(segment_of[taking_part].tolist())):
        segments[owner == i + 1] = len(info) + 1
        info.append(
            {
                "id": len(info) + 1,
                "isthing": i not in first_of_stuff.values(),
                "category_id": classes[i],
                "score": max(score for score, segment in zip(scores, segment_of.tolist(), strict=True) if segment == i),
                "area": int(areas[i]),
            }
        )
    return segments, info


def _strongest(mask_logits: Tensor, taking_part: Tensor, segment_of: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(H, W), int64: 1 + segment of the query with the largest logit among those that take part; 0 if there is none.

    One query at a time, so that the memory does not grow with their number.
    """
    owner = torch.zeros(size_hw, dtype=torch.int64, device=mask_logits.device)
    largest = torch.full(size_hw, -torch.inf, device=mask_logits.device, dtype=mask_logits.dtype)
    for i in taking_part.nonzero().flatten().tolist():
        logits = resize_logits(mask_logits[i : i + 1], size_hw)[0]
        larger = logits > largest
        owner[larger] = segment_of[i].item() + 1
        largest = torch.maximum(largest, logits)
    return owner
