"""The losses and errors of training, on the pictures of an evaluation."""

from __future__ import annotations

from collections import Counter

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

# The sum over all decoder layers, the terms of the last, and the errors; in training, metrics.json has all terms.
SHOWN = (
    "total_loss", "loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice", "class_error", "cardinality_error",
)  # fmt: skip


class LossEvaluator(DatasetEvaluator):
    """Means over the pictures of what Detr gives as `losses` and `errors`, where it is given the truth."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._sums: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for output in outputs:
            if "losses" in output:
                values = {"total_loss": sum(output["losses"].values()), **output["losses"], **output["errors"]}
                of_picture = {name: values[name].item() for name in SHOWN if name in values}
                self._sums.update(of_picture)
                self._counts.update(of_picture.keys())

    def evaluate(self) -> dict[str, dict[str, float]]:
        """{"validation": {"total_loss", "loss_ce", ..., "class_error", "cardinality_error"}}, of the pictures of all
        processes; empty in all but the main process, and where no picture had a truth."""
        gathered = comm.gather((self._sums, self._counts))
        sums, counts = Counter(), Counter()
        for of_sums, of_counts in gathered:
            sums.update(of_sums)
            counts.update(of_counts)
        means = {name: sums[name] / counts[name] for name in SHOWN if counts[name]}
        return {"validation": means} if means else {}
