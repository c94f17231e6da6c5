"""Bipartite matching of predictions and ground truth (paper, equation 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou
from typing_extensions import NotRequired

from d2_detr.utils.errors import InputError


class Target(TypedDict):
    """Ground truth of one image with M objects."""

    labels: Tensor  # (M,), int64 in 0..K-1
    boxes: Tensor  # (M, 4), cxcywh in [0, 1] of the unpadded image
    masks: NotRequired[Tensor]  # (M, H, W), bool, for mask models


class Match(NamedTuple):
    """Indices of the matched pairs of one image, on the CPU."""

    queries: Tensor  # (*, min(Q, M)), int64, ascending
    objects: Tensor  # (*, min(Q, M)), int64


class HungarianMatcher:
    """Assign queries to objects at the lowest total cost.

    The cost of a pair is

        class_weight * -p(gt class) + l1_weight * L1(pred box, gt box) + giou_weight * -GIoU(pred box, gt box)

    The class term is the probability, not its logarithm, so that it is commensurable with the box terms.
    """

    def __init__(self, class_weight: float = 1.0, l1_weight: float = 5.0, giou_weight: float = 2.0):
        if class_weight == l1_weight == giou_weight == 0:
            raise InputError("all weights of the matching cost are 0; set class_weight, l1_weight or giou_weight")
        self.class_weight = class_weight
        self.l1_weight = l1_weight
        self.giou_weight = giou_weight

    @torch.no_grad()
    def __call__(self, pred_logits: Tensor, pred_boxes: Tensor, targets: Sequence[Target]) -> list[Match]:
        """Match the queries and objects of each image.

        Args:
            pred_logits: (*, B, Q, K + 1), index K is no-object; * are the decoder layers, or nothing.
            pred_boxes: (*, B, Q, 4), cxcywh in [0, 1] of the unpadded image.
            targets: ground truth of each image.

        Returns:
            The match of each image.
        """
        from scipy.optimize import linear_sum_assignment  # a quarter of a second, which inference need not wait for

        leading = pred_logits.shape[:-3]
        cost = self.cost(pred_logits, pred_boxes, targets).numpy()
        cost = cost.reshape(math.prod(leading), *cost.shape[-3:])
        matches, end = [], 0
        for image, target in enumerate(targets):
            start, end = end, end + len(target["labels"])
            pairs = np.stack([linear_sum_assignment(matrix[image, :, start:end]) for matrix in cost])
            matches.append(Match(*torch.from_numpy(pairs).view(*leading, *pairs.shape[1:]).unbind(-2)))
        return matches

    def cost(self, pred_logits: Tensor, pred_boxes: Tensor, targets: Sequence[Target]) -> Tensor:
        """Return the cost (*, B, Q, M_0 + M_1 + ...) of matching, on the CPU.

        One matrix of each query with every object of the batch needs a single transfer from the device. Predictions
        that are not finite get a large finite cost; the loss that follows is not finite and reported by name.
        """
        labels = torch.cat([target["labels"] for target in targets])
        gt_boxes = torch.cat([target["boxes"] for target in targets])
        probabilities = pred_logits.softmax(-1).flatten(0, -2)
        boxes = pred_boxes.flatten(0, -2)

        l1 = torch.cdist(boxes, gt_boxes, p=1)
        giou = generalized_box_iou(*(box_convert(b, "cxcywh", "xyxy") for b in (boxes, gt_boxes)))
        cost = self.l1_weight * l1 - self.class_weight * probabilities[:, labels] - self.giou_weight * giou
        return cost.nan_to_num(nan=1e6, posinf=1e6, neginf=-1e6).view(*pred_logits.shape[:-1], -1).cpu()
