"""The losses and errors of training, on the pictures of an evaluation."""

from __future__ import annotations

from collections import Counter

import torch

from d2_detr.modeling.criterion import loss_normalizers

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

# The sum over all decoder layers, the terms of the last, and the errors; in training, metrics.json has all terms.
SHOWN = (
    "total_loss", "loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice", "class_error", "cardinality_error",
)  # fmt: skip


class LossEvaluator(DatasetEvaluator):
    """What Detr gives as `losses` and `errors` of each picture, where it is given the truth, as it would be of all
    pictures in one batch: comparable with those of training, however the objects are distributed over the pictures."""

    def __init__(self, num_queries: int, no_object_weight: float):
        self._num_queries = num_queries
        self._no_object_weight = no_object_weight
        self.reset()

    def reset(self) -> None:
        self._sums: Counter[str] = Counter()
        self._divisors: Counter[str] = Counter()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for picture, output in zip(inputs, outputs, strict=True):
            if "losses" not in output:
                continue
            objects, weights = loss_normalizers([len(picture["instances"])], self._num_queries, self._no_object_weight)
            values = {**output["losses"], **output["errors"]}
            for name, value in zip(values, torch.stack(list(values.values())).tolist(), strict=True):
                divisor = weights if name.startswith("loss_ce") else 1 if name == "cardinality_error" else objects
                if divisor:
                    self._sums[name] += value * divisor
                    self._divisors[name] += divisor

    def evaluate(self) -> dict[str, dict[str, float]]:
        """{"validation": {"total_loss", "loss_ce", ..., "class_error", "cardinality_error"}}, of the pictures of all
        processes; empty in all but the main process, and where no picture had a truth."""
        gathered = comm.gather((self._sums, self._divisors))
        sums, divisors = Counter(), Counter()
        for of_sums, of_divisors in gathered:
            sums.update(of_sums)
            divisors.update(of_divisors)
        means = {name: total / divisors[name] for name, total in sums.items()}
        if not means:
            return {}
        means["total_loss"] = sum(mean for name, mean in means.items() if name.startswith("loss_"))
        return {"validation": {name: means[name] for name in SHOWN if name in means}}
