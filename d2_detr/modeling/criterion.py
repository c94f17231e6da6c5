"""The set prediction loss: class, box and mask losses (paper, section 3.1).

Shape shorthand: B images, Q queries, K classes (index K is no-object), M objects in an image, L decoder layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert, generalized_box_iou_loss

from d2_detr.modeling.matcher import HungarianMatcher, Match, Target
from d2_detr.modeling.segmentation import mask_losses


class SetCriterion(nn.Module):
    """Compute the weighted losses of DETR, and two errors for the log."""

    class_weights: Tensor

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
        class_weights = torch.ones(num_classes + 1)
        class_weights[-1] = no_object_weight
        # Not saved: it restates the config, and a checkpoint must not override that.
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(
        self,
        pred_logits: Tensor,
        pred_boxes: Tensor,
        targets: Sequence[Target],
        predict_masks: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the losses of every decoder layer and the errors of the last.

        Args:
            pred_logits: (L, B, Q, K + 1).
            pred_boxes: (L, B, Q, 4), cxcywh in [0, 1] of the unpadded image.
            targets: ground truth of each image, with masks if `predict_masks` is given.
            predict_masks: maps indices of images (N,) and queries (N,) to mask logits; called once, with the matches
                of the last layer.

        Returns:
            losses: `loss_ce, loss_bbox, loss_giou[, loss_mask, loss_dice]` of the last layer and, with the suffix `_i`,
                the first three of each earlier layer i; already weighted, so that their sum is the training loss.
            errors: `class_error`, percentage of matched queries whose highest-scoring class is wrong, absent without
                objects; `cardinality_error`, mean of |number of queries that predict an object - M|.
        """
        num_boxes, weight_sum = self._loss_normalizers(targets, pred_logits)
        normalizers = {"loss_ce": weight_sum, "loss_bbox": num_boxes, "loss_giou": num_boxes}
        losses: dict[str, Tensor] = {}
        last = len(pred_logits) - 1
        for layer, (logits, boxes) in enumerate(zip(pred_logits, pred_boxes, strict=True)):
            matches = self.matcher(logits, boxes, targets)
            layer_losses = self._layer_losses(logits, boxes, targets, matches)
            suffix = "" if layer == last else f"_{layer}"
            for name, loss in layer_losses.items():
                losses[name + suffix] = self.weights[name] * (loss / normalizers[name])
        if predict_masks is not None:
            mask_logits = predict_masks(*_matched_queries(matches))
            losses |= mask_losses(mask_logits, _matched_per_image(targets, matches, "masks"), num_boxes)
        return losses, self._errors(logits, targets, matches)

    def _loss_normalizers(self, targets: Sequence[Target], pred_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the divisors of the box and mask losses and of the cross entropy.

        In training both are means over the processes, so that the mean of the processes' losses is the loss of the
        whole batch. (Native DETR does this for the boxes, but divides the cross entropy by each process's own sum.) In
        evaluation the processes do not wait for each other.
        """
        num_objects = [len(target["labels"]) for target in targets]
        normalizers = torch.tensor(
            loss_normalizers(num_objects, pred_logits.shape[2], self.no_object_weight),
            dtype=torch.float32,
            device=pred_logits.device,
        )
        if self.training and dist.is_available() and dist.is_initialized():
            dist.all_reduce(normalizers)
            normalizers /= dist.get_world_size()
        return normalizers[0].clamp(min=1), normalizers[1]

    def _layer_losses(
        self, logits: Tensor, boxes: Tensor, targets: Sequence[Target], matches: Sequence[Match]
    ) -> dict[str, Tensor]:
        """Return the losses of one decoder layer, summed over the batch."""
        queries = _matched_queries(matches)
        target_classes = torch.full(logits.shape[:2], self.num_classes, dtype=torch.int64, device=logits.device)
        target_classes[queries] = _matched(targets, matches, "labels")
        matched_boxes, gt_boxes = boxes[queries], _matched(targets, matches, "boxes")
        xyxy = (box_convert(b, "cxcywh", "xyxy") for b in (matched_boxes, gt_boxes))
        entropy = F.cross_entropy(logits.flatten(0, 1), target_classes.flatten(), self.class_weights, reduction="sum")
        return {
            "loss_ce": entropy,
            "loss_bbox": F.l1_loss(matched_boxes, gt_boxes, reduction="sum"),
            "loss_giou": generalized_box_iou_loss(*xyxy, eps=0.0, reduction="sum"),
        }

    @torch.no_grad()
    def _errors(self, logits: Tensor, targets: Sequence[Target], matches: Sequence[Match]) -> dict[str, Tensor]:
        pred_classes = logits.argmax(-1)
        num_objects = torch.tensor([len(target["labels"]) for target in targets], device=logits.device)
        num_predicted = (pred_classes != self.num_classes).sum(1)
        errors = {"cardinality_error": (num_predicted - num_objects).abs().float().mean()}
        labels = _matched(targets, matches, "labels")
        if len(labels):
            wrong = pred_classes[_matched_queries(matches)] != labels
            errors["class_error"] = 100 * wrong.float().mean()
        return errors


def loss_normalizers(num_objects: Sequence[int], num_queries: int, no_object_weight: float) -> tuple[float, float]:
    """Return the divisors of losses summed over a batch, given each image's objects.

    Box and mask losses are divided by the number of objects, the cross entropy by the sum of the class weights.
    """
    num_matched = sum(min(number, num_queries) for number in num_objects)
    return sum(num_objects), num_matched + (len(num_objects) * num_queries - num_matched) * no_object_weight


def _matched_queries(matches: Sequence[Match]) -> tuple[Tensor, Tensor]:
    """Return the image index (N,) and query index (N,) of every match in the batch."""
    images = torch.cat([torch.full_like(match.queries, i) for i, match in enumerate(matches)])
    return images, torch.cat([match.queries for match in matches])


_Field = Literal["labels", "boxes", "masks"]


def _matched(targets: Sequence[Target], matches: Sequence[Match], field: _Field) -> Tensor:
    """Return a field of all matched objects, in the order of `_matched_queries`."""
    return torch.cat(_matched_per_image(targets, matches, field))


def _matched_per_image(targets: Sequence[Target], matches: Sequence[Match], field: _Field) -> list[Tensor]:
    return [target[field][match.objects] for target, match in zip(targets, matches, strict=True)]
