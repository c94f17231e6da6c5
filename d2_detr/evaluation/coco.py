"""COCO's average precision, also of a model with more classes than the dataset."""

from __future__ import annotations

import contextlib
import io
import logging

from d2_detr.structures.dataset import Dataset

from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Instances

logger = logging.getLogger(COCOEvaluator.__module__)  # what pycocotools prints belongs to its messages


class KnownClassesEvaluator(COCOEvaluator):
    """COCOEvaluator that ignores predictions of classes that the dataset does not have.

    A class head may have more rows than the dataset has classes (MODEL.DETR.NUM_CLASSES); COCOEvaluator stops at the
    first prediction of such a class.
    """

    def __init__(self, dataset: Dataset, tasks: tuple[str, ...], *, output_dir: str, quiet: bool = False):
        """Prepare an evaluation of `tasks`, "bbox" and "segm".

        Args:
            output_dir: folder for the predictions.
            quiet: log what pycocotools prints at DEBUG instead of printing it.
        """
        super().__init__(dataset.catalog_name, tasks, output_dir=output_dir)
        self._num_classes = len(dataset.label_map)
        self._quiet = quiet

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Keep the predictions for a batch."""
        super().process(
            inputs, [output | {"instances": self._drop_unknown_classes(output["instances"])} for output in outputs]
        )

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Compute AP, by task and measure."""
        if not self._quiet:
            return super().evaluate()
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            results = super().evaluate()
        if text := printed.getvalue().strip():
            logger.debug(text)
        return results

    def _drop_unknown_classes(self, instances: Instances) -> Instances:
        return instances[instances.pred_classes < self._num_classes]
