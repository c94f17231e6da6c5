"""Fine-tuning a trained DETR on a dataset of one's own, from few words: what they mean as a config.

How it learns is the recipe of detr_r50_custom.yaml, or of detr_segm_r50_custom.yaml with masks; the model is that of
the weights, of any size.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from d2_detr.checkpoint.model_config import SECTIONS, config_of
from d2_detr.utils.errors import InputError
from d2_detr.workflows.setup import load_config, merge_options
from d2_detr.workflows.train import train

from detectron2.config import CfgNode

RECIPES = {False: "detr_r50_custom.yaml", True: "detr_segm_r50_custom.yaml"}  # without masks, with them
# What the recipe decides in the sections of the config that come with the weights.
OF_THE_TASK = (
    "MODEL.MASK_ON", "MODEL.DETR.NUM_CLASSES", "MODEL.DETR.SCORE_THRESH_TEST", "MODEL.DETR.PANOPTIC_ON",
    "MODEL.DETR.STUFF_CLASSES", "INPUT.MASK_FORMAT",
)  # fmt: skip
# Statistics of a few pictures are not those of the whole dataset, by which evaluations go: with 2 pictures the compact
# model, whose batch norms are trained, comes to an AP of 13 with them frozen, as in DETR, and of 4 without. With 16
# pictures, in as many epochs, to 6 and to 12.
SMALLEST_BATCH_OF_BN = 16
EPOCHS = 10
SMALLEST_IMAGE = 32  # pixels, which become one place of the last feature map
PUBLISHED_BATCHES = (2, 64)  # the smallest, of people's fine-tunings, and the largest, of the paper


def finetune(data: str | Path, weights: str | Path = "", **options: Any) -> dict:
    """Fine-tune here, in this process. See finetune_config for the arguments, but num_processes.

    Returns:
        The last evaluation, as {"bbox": {"AP": ..., "AP50": ...}, ...}; all else lies in `output_dir`.
    """
    return train(finetune_config(data, weights, **options))


def finetune_config(
    data: str | Path,
    weights: str | Path = "",
    *,
    epochs: float = EPOCHS,
    output_dir: str | Path = "outputs",
    batch_size: int = 2,
    num_processes: int = 1,
    lr: float = 0,
    lr_backbone: float | None = None,
    lr_drop: float | None = None,
    image_size: int = 0,
    patience: int = 0,
    masks: bool = False,
    opts: Sequence[str] = (),
) -> CfgNode:
    """The config of a fine-tuning, complete but for what `setup` counts in the data.

    Args:
        data: folder of the dataset, in one of the layouts of data/layouts.py.
        weights: the trained model, whatever MODEL.WEIGHTS takes, as long as it is a whole DETR (its class head may be
            missing); "" takes the published one: detr://r50, or detr://r50-panoptic for masks.
        output_dir: folder for all that is written; `train` refuses one that holds a training.
        batch_size: pictures in an iteration, of each of `num_processes`.
        lr: learning rate; 0 for that of the batch (see learning_rate).
        lr_backbone: that of the backbone; None for a tenth. 0 freezes it.
        lr_drop: epochs after which the rate falls to a tenth; None for four fifths of them.
        image_size: short side of the pictures in pixels, in evaluation and at most in training; half of it takes a
            quarter of time and memory. 0 for what the weights were trained with (800, if they are published ones).
        patience: evaluations, one an epoch, without a higher AP after which the training ends; 0 for never.
        masks: learn masks besides boxes, of a dataset that has them.
        opts: KEY VALUE pairs that win over all else.

    Raises:
        FileNotFoundError, ConnectionError, InputError: the weights cannot be had or read, or are of no whole DETR; a
            number that makes no sense, a key that does not exist.
    """
    _check(epochs=epochs, batch_size=batch_size)
    _check_not_negative(lr=lr, lr_backbone=lr_backbone or 0, image_size=image_size, patience=patience)
    if 0 < image_size < SMALLEST_IMAGE:
        raise InputError(f"image_size {image_size}: expected {SMALLEST_IMAGE} pixels or more; objects would be lost")
    batch_of_all = batch_size * num_processes
    cfg = load_config(RECIPES[masks], [], str(data))
    task = {key: reduce(getitem, key.split("."), cfg) for key in OF_THE_TASK}
    merge_options(cfg.clone(), opts)  # a mistake shows before anything is downloaded
    model, _ = config_of(str(weights) or cfg.MODEL.WEIGHTS, to_train=True)
    for section in SECTIONS:
        cfg[section] = model[section]
    cfg.merge_from_list([part for pair in task.items() for part in pair])
    if cfg.MODEL.RESNETS.NORM == "BN" and batch_size < SMALLEST_BATCH_OF_BN:
        cfg.MODEL.RESNETS.NORM = "FrozenBN"
    cfg.OUTPUT_DIR = str(output_dir)
    cfg.DATALOADER.NUM_WORKERS = min(cfg.DATALOADER.NUM_WORKERS, os.cpu_count() or 1)
    cfg.SOLVER.MAX_EPOCHS = epochs
    cfg.SOLVER.IMS_PER_BATCH = batch_of_all
    cfg.SOLVER.BASE_LR = lr or learning_rate(batch_of_all)
    if lr_backbone is not None:
        cfg.SOLVER.BACKBONE_MULTIPLIER = lr_backbone / cfg.SOLVER.BASE_LR
    if lr_drop is not None:
        cfg.SOLVER.STEPS = (lr_drop / epochs,) if 0 < lr_drop < epochs else ()
    cfg.SOLVER.PATIENCE = patience
    if image_size:
        _resize(cfg.INPUT, image_size)
    merge_options(cfg, opts)
    return cfg


def _resize(sizes: CfgNode, short_side: int) -> None:
    """Training has short sides up to this one, evaluation this one, and long sides grow or shrink with them."""
    factor = short_side / max(sizes.MIN_SIZE_TRAIN)
    of_test = short_side / sizes.MIN_SIZE_TEST if sizes.MIN_SIZE_TEST else factor  # 0 leaves pictures as they are
    sizes.MIN_SIZE_TRAIN = tuple(round(size * factor) for size in sizes.MIN_SIZE_TRAIN)
    sizes.MAX_SIZE_TRAIN = round(sizes.MAX_SIZE_TRAIN * factor)
    sizes.MIN_SIZE_TEST, sizes.MAX_SIZE_TEST = short_side, round(sizes.MAX_SIZE_TEST * of_test)


def lengthen(cfg: CfgNode, epochs: float) -> CfgNode:
    """The config of a training as one of so many epochs in all, to go on with it; the rate falls at the same fraction
    of them."""
    _check(epochs=epochs)
    longer = cfg.clone()
    longer.SOLVER.STEPS = tuple(step / cfg.SOLVER.MAX_ITER for step in cfg.SOLVER.STEPS)
    longer.SOLVER.MAX_EPOCHS = epochs
    return longer


def learning_rate(batch_size: int) -> float:
    """1e-4 for the batches that it was published for; beyond them AdamW wants the square root of the ratio."""
    nearest = min(max(batch_size, PUBLISHED_BATCHES[0]), PUBLISHED_BATCHES[1])
    return 1e-4 * math.sqrt(batch_size / nearest)


def _check(**numbers: float) -> None:
    for name, value in numbers.items():
        if value <= 0:
            raise InputError(f"{name} {value}: expected a positive number")


def _check_not_negative(**numbers: float) -> None:
    for name, value in numbers.items():
        if value < 0:
            raise InputError(f"{name} {value}: expected 0 or more")
