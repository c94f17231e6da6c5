"""Bipartite matching of predictions and ground truth (paper, section 3.1, equation 1)."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

from d2_detr.utils.errors import InputError

Target = dict[str, Tensor]


class HungarianMatcher:
    """Find the assignment of queries to objects with the least sum of

        class_weight * -p(class of the object) + l1_weight * |box - box| + giou_weight * -GIoU(box, box)

    The class term is the probability and not its logarithm, so that it is commensurable with the box terms.
    """

    def __init__(self, class_weight: float = 1.0, l1_weight: float = 5.0, giou_weight: float = 2.0):
        if class_weight == l1_weight == giou_weight == 0:
            raise InputError("all weights of the matching cost are 0: nothing to match by")
        self.class_weight = class_weight
        self.l1_weight = l1_weight
        self.giou_weight = giou_weight

    @torch.no_grad()
    def __call__(self, pred_logits: Tensor, pred_boxes: Tensor, targets: list[Target]) -> list[tuple[Tensor, Tensor]]:
        """Match every picture of a batch on its own.

        Args:
            pred_logits: (B, Q, K + 1), index K is no-object.
            pred_boxes: (B, Q, 4), cxcywh in [0, 1] of the unpadded picture.
            targets: for each picture, `labels` (M,) in 0..K-1 and `boxes` (M, 4) like pred_boxes.

        Returns:
            For each picture two int64 tensors of min(Q, M) indices on the CPU: queries, ascending, and their objects.
        """
        cost = self.cost(pred_logits, pred_boxes, targets)
        sizes = [len(target["labels"]) for target in targets]
        matches = []
        for i, of_picture in enumerate(cost.split(sizes, dim=2)):
            queries, objects = linear_sum_assignment(of_picture[i])
            matches.append((torch.as_tensor(queries), torch.as_tensor(objects)))
        return matches

    def cost(self, pred_logits: Tensor, pred_boxes: Tensor, targets: list[Target]) -> Tensor:
        """(B, Q, M_0 + M_1 + ...), on the CPU: of every query against the objects of the whole batch.

        One matrix for the batch means one transfer from the device. Where predictions are not finite the cost is
        large and finite: the loss that follows is not finite either, and says so by its name.
        """
        labels = torch.cat([target["labels"] for target in targets])
        boxes = torch.cat([target["boxes"] for target in targets])
        probability = pred_logits.softmax(-1).flatten(0, 1)
        predicted = pred_boxes.flatten(0, 1)

        l1 = torch.cdist(predicted, boxes, p=1)
        giou = generalized_box_iou(*(box_convert(b, "cxcywh", "xyxy") for b in (predicted, boxes)))
        cost = self.l1_weight * l1 - self.class_weight * probability[:, labels] - self.giou_weight * giou
        return cost.nan_to_num(nan=1e6, posinf=1e6, neginf=-1e6).view(*pred_logits.shape[:2], -1).cpu()
