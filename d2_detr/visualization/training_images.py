"""Training images as the model sees them: augmented, with the objects that it learns to predict."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from d2_detr.data.images import convert_rgb
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.data.sampling import sample_evenly
from d2_detr.structures.conversions import detections_from_targets
from d2_detr.structures.dataset import Dataset
from d2_detr.visualization.predictions import Comparison, View, save_comparisons

from detectron2.config import CfgNode

TRAINING_IMAGES = "training_pictures.png"
NUMBER, COLUMNS = 8, 4


def save_training_images(cfg: CfgNode, dataset: Dataset, path: Path) -> None:
    """Write an image of some training images, each as one iteration may see it.

    The state of the random number generator is preserved.
    """
    mapper = DetrDatasetMapper(cfg, is_train=True)
    comparisons = []
    with _preserved_random_state():
        for record in sample_evenly(dataset.records, NUMBER):
            inputs = mapper(record)
            image = convert_rgb(inputs["image"].permute(1, 2, 0).numpy(), cfg.INPUT.FORMAT)
            view = View("ground truth", detections_from_targets(inputs["instances"]), dataset.label_map.names)
            height, width = image.shape[:2]
            comparisons.append(Comparison(f"{Path(record['file_name']).name}, {width} x {height}", image, [view]))
    save_comparisons(comparisons, path, columns=COLUMNS)


@contextmanager
def _preserved_random_state() -> Iterator[None]:
    """Restore the state of numpy's generator, from which augmentations draw."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)
