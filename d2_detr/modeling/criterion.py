"""The set prediction loss (paper, section 3.1): match, then supervise class, box and mask of each matched pair.

Shape shorthand: B pictures, Q queries, K classes (index K is no-object), M objects of a picture, L decoder layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert, generalized_box_iou_loss

from d2_detr.modeling.matcher import HungarianMatcher, Target
from d2_detr.modeling.segmentation import mask_losses


class SetCriterion(nn.Module):
    """Weighted losses of DETR, and the two errors that are logged beside them."""

    def __init__(
        self,
        *,
        num_classes: int,
        matcher: HungarianMatcher,
        class_weight: float = 1.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
        no_object_weight: float = 0.1,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.matcher = matcher
        self.weights = {"loss_ce": class_weight, "loss_bbox": l1_weight, "loss_giou": giou_weight}
        self.no_object_weight = no_object_weight
        of_classes = torch.ones(num_classes + 1)
        of_classes[-1] = no_object_weight
        # It restates the config, so it is not saved: a checkpoint must not bring its own weight along.
        self.register_buffer("class_weights", of_classes, persistent=False)

    def forward(
        self,
        pred_logits: Tensor,
        pred_boxes: Tensor,
        targets: list[Target],
        predict_masks: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of every decoder layer, errors of the last.

        Args:
            pred_logits: (L, B, Q, K + 1).
            pred_boxes: (L, B, Q, 4), cxcywh in [0, 1] of the unpadded picture.
            targets: for each picture, `labels` (M,) in 0..K-1 and `boxes` (M, 4) like pred_boxes; for masks also
                `masks` (M, H, W), bool.
            predict_masks: from the indices of pictures (N,) and queries (N,) to their mask logits; asked for those that
                the last layer matches.

        Returns:
            losses: `loss_ce, loss_bbox, loss_giou[, loss_mask, loss_dice]` of the last layer and, with the suffix `_i`,
                the first three of layer i before it; already weighted, their sum is what is differentiated.
            errors: `class_error`, percentage of the matched queries whose likeliest class is wrong, absent where
                the batch has no object; `cardinality_error`, mean of |queries that see an object - objects|.
        """
        num_boxes, class_weight = self._normalisers(targets, pred_logits)
        losses: dict[str, Tensor] = {}
        last = len(pred_logits) - 1
        for layer, (logits, boxes) in enumerate(zip(pred_logits, pred_boxes, strict=True)):
            matches = self.matcher(logits, boxes, targets)
            of_layer = self._losses(logits, boxes, targets, matches, num_boxes, class_weight)
            suffix = "" if layer == last else f"_{layer}"
            losses |= {name + suffix: self.weights[name] * loss for name, loss in of_layer.items()}
        if predict_masks is not None:
            mask_logits = predict_masks(*_indices_of_queries(matches))
            losses |= mask_losses(mask_logits, _matched_per_picture(targets, matches, "masks"), num_boxes)
        return losses, self._errors(logits, targets, matches)

    def _normalisers(self, targets: list[Target], pred_logits: Tensor) -> tuple[Tensor, Tensor]:
        """What the box losses and the cross entropy are divided by.

        In training both are means over the processes of the group, so that the mean of the processes' losses is the
        loss of the whole batch. (Native DETR does so for the boxes, and divides the cross entropy by the process's own
        sum.) In evaluation the processes do not wait for each other.
        """
        num_objects = [len(target["labels"]) for target in targets]
        of_batch = loss_normalizers(num_objects, pred_logits.shape[2], self.no_object_weight)
        values = torch.tensor(of_batch, dtype=torch.float32, device=pred_logits.device)
        if self.training:
            values = _mean_over_processes(values)
        return values[0].clamp(min=1), values[1]

    def _losses(
        self, logits: Tensor, boxes: Tensor, targets: list[Target], matches, num_boxes: Tensor, class_weight: Tensor
    ):
        queries = _indices_of_queries(matches)
        labels = _matched(targets, matches, "labels")
        of_queries = torch.full(logits.shape[:2], self.num_classes, dtype=torch.int64, device=logits.device)
        of_queries[queries] = labels
        matched_boxes, gt_boxes = boxes[queries], _matched(targets, matches, "boxes")
        giou_loss = generalized_box_iou_loss(
            box_convert(matched_boxes, "cxcywh", "xyxy"), box_convert(gt_boxes, "cxcywh", "xyxy"), eps=0.0
        )
        entropy = F.cross_entropy(logits.flatten(0, 1), of_queries.flatten(), self.class_weights, reduction="sum")
        return {
            "loss_ce": entropy / class_weight,
            "loss_bbox": F.l1_loss(matched_boxes, gt_boxes, reduction="sum") / num_boxes,
            "loss_giou": giou_loss.sum() / num_boxes,
        }

    @torch.no_grad()
    def _errors(self, logits: Tensor, targets: list[Target], matches) -> dict[str, Tensor]:
        likeliest = logits.argmax(-1)
        num_objects = torch.tensor([len(target["labels"]) for target in targets], device=logits.device)
        num_predicted = (likeliest != self.num_classes).sum(1)
        errors = {"cardinality_error": (num_predicted - num_objects).abs().float().mean()}
        labels = _matched(targets, matches, "labels")
        if len(labels):
            wrong = likeliest[_indices_of_queries(matches)] != labels
            errors["class_error"] = 100 * wrong.float().mean()
        return errors


def loss_normalizers(num_objects: Sequence[int], num_queries: int, no_object_weight: float) -> tuple[float, float]:
    """What sums over pictures with so many objects are divided by: of the losses of boxes and masks the number of
    objects, of the cross entropy the sum of the class weights."""
    matched = sum(min(number, num_queries) for number in num_objects)
    return sum(num_objects), matched + (len(num_objects) * num_queries - matched) * no_object_weight


def _indices_of_queries(matches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Index pair (picture, query) of every match of the batch."""
    picture = torch.cat([torch.full_like(queries, i) for i, (queries, _) in enumerate(matches)])
    return picture, torch.cat([queries for queries, _ in matches])


def _matched(targets: list[Target], matches: list[tuple[Tensor, Tensor]], field: str) -> Tensor:
    """`field` of the matched objects of all pictures, in the order of _indices_of_queries."""
    return torch.cat(_matched_per_picture(targets, matches, field))


def _matched_per_picture(targets: list[Target], matches: list[tuple[Tensor, Tensor]], field: str) -> list[Tensor]:
    return [target[field][objects] for target, (_, objects) in zip(targets, matches, strict=True)]


def _mean_over_processes(values: Tensor) -> Tensor:
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values
