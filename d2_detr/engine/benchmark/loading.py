"""Speed of the training loader alone, in one process on one core."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from d2_detr.data.images import read_image
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.engine.benchmark.drawn import drawn_dataset
from d2_detr.engine.benchmark.measure import time_call
from d2_detr.structures.dataset import Record

from detectron2.config import CfgNode

NUM_IMAGES = 32
SIDE = 640  # of the images, in pixels; like COCO's


def measure_loader(cfg: CfgNode, *, num_images: int = NUM_IMAGES, side: int = SIDE) -> dict[str, float]:
    """Return images per second per core: `decoding` alone, and `loading` with resizing and augmentation.

    Args:
        side: width and height in pixels of the JPEG files, before the config's mapper resizes them.
    """
    mapper, cpu = DetrDatasetMapper(cfg, is_train=True), torch.device("cpu")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker of the loader
    try:
        with tempfile.TemporaryDirectory() as folder:
            records = drawn_dataset(Path(folder), num_images, side, evaluated=False).records
            calls: dict[str, Callable[[Record], object]] = {"decoding": _decode, "loading": mapper}
            seconds = dict.fromkeys(calls, 0.0)
            for name, call in calls.items():
                call(records[0])  # for warm-up
                for record in tqdm(records, name, unit=" images"):
                    seconds[name] += time_call(partial(call, record), cpu)
    finally:
        torch.set_num_threads(num_threads)
    return {name: num_images / total for name, total in seconds.items()}


def _decode(record: Record) -> np.ndarray:
    return read_image(record["file_name"])
