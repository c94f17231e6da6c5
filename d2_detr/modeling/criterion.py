"""The set prediction loss: class, box and mask losses (paper, section 3.1).

Shape shorthand: B images, Q queries, K classes (index K is no-object), M objects in an image, L decoder layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

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
        matches = self.matcher(pred_logits, pred_boxes, targets)
        pairs = _MatchedPairs.of(matches, targets, pred_logits.device)
        per_layer = {
            name: (self.weights[name] * (loss / normalizers[name])).unbind()
            for name, loss in self._losses(pred_logits, pred_boxes, targets, pairs).items()
        }
        suffixes = [*(f"_{layer}" for layer in range(len(pred_logits) - 1)), ""]
        losses = {name + suffix: loss[i] for i, suffix in enumerate(suffixes) for name, loss in per_layer.items()}
        if predict_masks is not None:
            mask_logits = predict_masks(pairs.images, pairs.queries[-1])
            gt_masks = [target["masks"][match.objects[-1]] for target, match in zip(targets, matches, strict=True)]
            losses |= mask_losses(mask_logits, gt_masks, num_boxes)
        return losses, self._errors(pred_logits[-1], targets, pairs)

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

    def _losses(
        self, logits: Tensor, boxes: Tensor, targets: Sequence[Target], pairs: _MatchedPairs
    ) -> dict[str, Tensor]:
        """Return the losses (L,) of every decoder layer, summed over the batch."""
        gt_classes = torch.cat([target["labels"] for target in targets])[pairs.objects]
        gt_boxes = torch.cat([target["boxes"] for target in targets])[pairs.objects]
        layers = torch.arange(len(logits), device=logits.device)[:, None]
        matched = layers, pairs.images, pairs.queries
        classes = torch.full(logits.shape[:-1], self.num_classes, dtype=torch.int64, device=logits.device)
        classes[matched] = gt_classes
        entropy = F.cross_entropy(logits.flatten(0, 2), classes.flatten(), self.class_weights, reduction="none")
        pred_boxes = boxes[matched]
        corners = (box_convert(b.flatten(0, 1), "cxcywh", "xyxy") for b in (pred_boxes, gt_boxes))
        return {
            "loss_ce": entropy.view(len(logits), -1).sum(1),
            "loss_bbox": F.l1_loss(pred_boxes, gt_boxes, reduction="none").sum((1, 2)),
            "loss_giou": generalized_box_iou_loss(*corners, eps=0.0).view(len(logits), -1).sum(1),
        }

    @torch.no_grad()
    def _errors(self, logits: Tensor, targets: Sequence[Target], pairs: _MatchedPairs) -> dict[str, Tensor]:
        pred_classes = logits.argmax(-1)
        num_objects = torch.tensor([len(target["labels"]) for target in targets], device=logits.device)
        num_predicted = (pred_classes != self.num_classes).sum(1)
        errors = {"cardinality_error": (num_predicted - num_objects).abs().float().mean()}
        if len(pairs.images):
            gt_classes = torch.cat([target["labels"] for target in targets])[pairs.objects[-1]]
            wrong = pred_classes[pairs.images, pairs.queries[-1]] != gt_classes
            errors["class_error"] = 100 * wrong.float().mean()
        return errors


class _MatchedPairs(NamedTuple):
    """The N matched pairs of a batch, for every decoder layer, on the device of the predictions."""

    images: Tensor  # (N,), index in the batch
    queries: Tensor  # (L, N)
    objects: Tensor  # (L, N), index among all objects of the batch

    @classmethod
    def of(cls, matches: Sequence[Match], targets: Sequence[Target], device: torch.device) -> _MatchedPairs:
        """Collect the matches of all images, in one transfer."""
        first_objects = accumulate((len(target["labels"]) for target in targets), initial=0)
        rows = [
            torch.cat((torch.full_like(match.queries[:1], image), match.queries, match.objects + first_object))
            for image, (match, first_object) in enumerate(zip(matches, first_objects, strict=False))
        ]
        indices = torch.cat(rows, dim=1).to(device)
        num_layers = len(matches[0].queries)
        return cls(indices[0], indices[1 : num_layers + 1], indices[num_layers + 1 :])


def loss_normalizers(num_objects: Sequence[int], num_queries: int, no_object_weight: float) -> tuple[float, float]:
    """Return the divisors of losses summed over a batch, given each image's objects.

    Box and mask losses are divided by the number of objects, the cross entropy by the sum of the class weights.
    """
    num_matched = sum(min(number, num_queries) for number in num_objects)
    return sum(num_objects), num_matched + (len(num_objects) * num_queries - num_matched) * no_object_weight
