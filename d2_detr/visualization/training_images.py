"""The pictures that a model learns from, as it sees them: flipped, cropped, resized, with the objects to be found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from d2_detr.data.datasets.classes import names_of_rows
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.inference.attention import sample_evenly
from d2_detr.structures.conversions import detections_from_targets
from d2_detr.visualization.predictions import Comparison, View, save_comparisons

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

FILE_NAME = "training_pictures.png"
NUMBER, COLUMNS = 8, 4


def save_training_pictures(cfg: CfgNode, path: Path) -> None:
    """Write one image of pictures spread over the first training set, each as one iteration may have it.

    The random numbers of the training stay as they are.
    """
    name = cfg.DATASETS.TRAIN[0]
    mapper, class_names = DetrDatasetMapper(cfg, is_train=True), names_of_rows(cfg, name)
    comparisons = []
    with _random_numbers_kept():
        for record in sample_evenly(DatasetCatalog.get(name), NUMBER):
            inputs = mapper(record)
            picture = inputs["image"].numpy().transpose(1, 2, 0)
            picture = picture[:, :, ::-1] if cfg.INPUT.FORMAT == "BGR" else picture
            view = View("to find", detections_from_targets(inputs["instances"]), class_names)
            height, width = picture.shape[:2]
            comparisons.append(Comparison(f"{Path(record['file_name']).name}, {width} x {height}", picture, [view]))
    save_comparisons(comparisons, path, columns=COLUMNS)


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """Augmentations draw from numpy's."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)
