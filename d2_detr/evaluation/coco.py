"""COCO's average precision, of models with more classes than the dataset, too."""

from __future__ import annotations

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator


class KnownClassesEvaluator(COCOEvaluator):
    """COCOEvaluator that leaves out what is predicted of classes that the dataset does not have.

    A class head may have rows to spare (MODEL.DETR.NUM_CLASSES); COCOEvaluator stops at the first prediction of one.
    """

    def __init__(self, dataset_name: str, tasks: tuple[str, ...], *, output_dir: str):
        super().__init__(dataset_name, tasks, output_dir=output_dir)
        self._num_classes = len(MetadataCatalog.get(dataset_name).thing_classes)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        super().process(inputs, [output | {"instances": self._known(output["instances"])} for output in outputs])

    def _known(self, instances):
        return instances[instances.pred_classes < self._num_classes]
