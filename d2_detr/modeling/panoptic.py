"""Panoptic segmentation from the masks of queries (paper, section 4.4).

Shape shorthand: N queries, K classes (index K is no-object), h, w of the mask logits, H, W of the image.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from d2_detr.modeling.segmentation import resize_logits

NEGLIGIBLE_AREA = 4  # pixels: segments up to this area are discarded, as in native DETR

PanopticSegmentation = tuple[Tensor, list[dict[str, Any]]]


def panoptic_segmentation(
    probabilities: Tensor,
    mask_logits: Tensor,
    size_hw: tuple[int, int],
    *,
    stuff_classes: Collection[int],
    score_threshold: float,
) -> PanopticSegmentation:
    """Assign every pixel to the query with the highest mask logit there.

    Queries of the same stuff class form one segment. The pixels of a discarded segment are reassigned to the remaining
    queries. (Native DETR then also reassigns the pixels of merged stuff queries.)

    Args:
        probabilities: (N, K + 1).
        mask_logits: (N, h, w), of the whole image.
        size_hw: height and width of the segmentation.
        stuff_classes: classes whose queries form one segment.
        score_threshold: queries need a higher score than this to take part.

    Returns:
        Detectron2's panoptic format: the segment id of each pixel (H, W), int32, from 1, or 0 everywhere if no query
        takes part; and for each segment `id`, `isthing`, `category_id` (the class), `score` (the highest of its
        queries) and `area` in pixels.
    """
    max_probabilities, labels = probabilities.max(-1)
    keep = (labels < probabilities.shape[-1] - 1) & (max_probabilities > score_threshold)
    scores, classes, mask_logits = max_probabilities[keep].cpu(), labels[keep].tolist(), mask_logits[keep]
    # A segment is known by the index of its query, which for stuff is the first of the class.
    first_stuff = {label: classes.index(label) for label in stuff_classes if label in classes}
    segments = torch.tensor([first_stuff.get(label, i) for i, label in enumerate(classes)], dtype=torch.int64)

    active = torch.ones(len(classes), dtype=torch.bool)
    while True:
        owner = _assign_pixels(mask_logits, active, segments, size_hw)
        areas = torch.bincount(owner.flatten(), minlength=len(classes) + 1)[1:].cpu()
        negligible = active & (areas[segments] <= NEGLIGIBLE_AREA)
        if not negligible.any():
            break
        active &= ~negligible

    segmentation = torch.zeros_like(owner, dtype=torch.int32)
    segments_info: list[dict[str, Any]] = []
    for index in segments[active].unique().tolist():
        segment_id = len(segments_info) + 1
        segmentation[owner == index + 1] = segment_id
        segments_info.append(
            {
                "id": segment_id,
                "isthing": index not in first_stuff.values(),
                "category_id": classes[index],
                "score": scores[segments == index].max().item(),
                "area": int(areas[index]),
            }
        )
    return segmentation, segments_info


def _assign_pixels(mask_logits: Tensor, active: Tensor, segments: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Return 1 + segment (H, W), int64, of the active query with the highest logit, or 0 without any."""
    owner = torch.zeros(size_hw, dtype=torch.int64, device=mask_logits.device)
    highest = torch.full(size_hw, -torch.inf, device=mask_logits.device, dtype=mask_logits.dtype)
    # One query at a time, so that the memory does not grow with their number.
    for i in active.nonzero().flatten().tolist():
        logits = resize_logits(mask_logits[i : i + 1], size_hw)[0]
        higher = logits > highest
        owner[higher] = segments[i].item() + 1
        highest = torch.maximum(highest, logits)
    return owner
