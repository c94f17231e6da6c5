"""The losses and errors of training, measured on the images of an evaluation."""

from __future__ import annotations

from collections import defaultdict

import torch

from d2_detr.modeling.criterion import loss_normalizers

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

# The sum over all decoder layers, the terms of the last layer, and the errors.
REPORTED = (
    "total_loss", "loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice", "class_error", "cardinality_error",
)  # fmt: skip


class LossEvaluator(DatasetEvaluator):
    """Average the `losses` and `errors` that Detr returns for each image with ground truth.

    The averages are those of a single batch with all images, so that they are comparable with training however the
    objects are distributed over the images.
    """

    def __init__(self, num_queries: int, no_object_weight: float):
        self._num_queries = num_queries
        self._no_object_weight = no_object_weight
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._sums: dict[str, float] = defaultdict(float)
        self._divisors: dict[str, float] = defaultdict(float)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Add the losses of a batch; outputs without `losses` are ignored."""
        for image, output in zip(inputs, outputs, strict=True):
            if "losses" not in output:
                continue
            objects, weights = loss_normalizers([len(image["instances"])], self._num_queries, self._no_object_weight)
            values = {**output["losses"], **output["errors"]}
            for name, value in zip(values, torch.stack(list(values.values())).tolist(), strict=True):
                divisor = weights if name.startswith("loss_ce") else 1 if name == "cardinality_error" else objects
                if divisor:
                    self._sums[name] += value * divisor
                    self._divisors[name] += divisor

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Average over the images of all processes.

        Returns:
            {"validation": {"total_loss", "loss_ce", ..., "class_error", "cardinality_error"}}; empty in all processes
            but the main one, and without ground truth.
        """
        sums: dict[str, float] = defaultdict(float)
        divisors: dict[str, float] = defaultdict(float)
        for process_sums, process_divisors in comm.gather((self._sums, self._divisors)):
            for name, divisor in process_divisors.items():
                sums[name] += process_sums[name]
                divisors[name] += divisor
        means = {name: total / divisors[name] for name, total in sums.items()}
        if not means:
            return {}
        means["total_loss"] = sum(mean for name, mean in means.items() if name.startswith("loss_"))
        return {"validation": {name: means[name] for name in REPORTED if name in means}}
