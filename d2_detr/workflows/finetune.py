"""Fine-tuning of a trained DETR on a custom dataset, with few options: what they mean as a config.

The training follows the recipe of detr_r50_custom.yaml, or of detr_segm_r50_custom.yaml for masks; the model is that of
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

from d2_detr.checkpoint.model_config import SECTIONS, model_config
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.config import load_config, merge_options
from d2_detr.config.checking import MAX_SIDE, check_config, check_value
from d2_detr.utils.errors import InputError, error_context
from d2_detr.workflows.train import train

from detectron2.config import CfgNode

RECIPES = {False: "detr_r50_custom.yaml", True: "detr_segm_r50_custom.yaml"}  # without masks, with masks
# Keys of the sections that come with the weights which the recipe decides nevertheless.
TASK_KEYS = (
    "MODEL.MASK_ON", "MODEL.DETR.NUM_CLASSES", "MODEL.DETR.SCORE_THRESH_TEST", "MODEL.DETR.PANOPTIC_ON",
    "MODEL.DETR.STUFF_CLASSES", "INPUT.MASK_FORMAT",
)  # fmt: skip
# Batch statistics of a few images differ from those of the dataset, which an evaluation uses. The compact model, whose
# batch norms are trained, reaches an AP of 13 with batches of 2 if they are frozen, as in DETR, and of 4 otherwise;
# with batches of 16, after as many epochs, 6 and 12.
MIN_BATCH_TO_TRAIN_BN = 16
EPOCHS = 10
MIN_IMAGE_SIZE = 32  # pixels, which become one cell of the last feature map
PUBLISHED_BATCHES = (2, 64)  # the smallest that people fine-tune with, and that of the paper


def finetune(
    data: str | Path,
    weights: str | Path = "",
    *,
    epochs: float = EPOCHS,
    output_dir: str | Path = "",
    batch_size: int = 2,
    lr: float | None = None,
    lr_backbone: float | None = None,
    lr_drop: float | None = None,
    image_size: int | None = None,
    patience: int = 0,
    masks: bool = False,
    strict: bool = False,
    opts: Sequence[object] = (),
) -> dict[str, Any]:
    """Fine-tune in this process; see finetune_config for the arguments.

    Returns:
        The evaluation of the best model, as {"bbox": {"AP": ..., "AP50": ...}, ...}. Everything else is in
        `output_dir`.

    Raises:
        FileNotFoundError, ConnectionError, InputError: see finetune_config and prepare_run.
    """
    return train(
        finetune_config(
            data, weights, epochs=epochs, output_dir=output_dir, batch_size=batch_size, lr=lr, lr_backbone=lr_backbone,
            lr_drop=lr_drop, image_size=image_size, patience=patience, masks=masks, strict=strict, opts=opts,
        )
    )  # fmt: skip


def finetune_config(
    data: str | Path,
    weights: str | Path = "",
    *,
    epochs: float = EPOCHS,
    output_dir: str | Path = "",
    batch_size: int = 2,
    num_processes: int = 1,
    lr: float | None = None,
    lr_backbone: float | None = None,
    lr_drop: float | None = None,
    image_size: int | None = None,
    patience: int = 0,
    masks: bool = False,
    strict: bool = False,
    opts: Sequence[object] = (),
) -> CfgNode:
    """Return the config of a fine-tuning.

    Args:
        data: folder of the dataset, in one of the layouts of data/datasets/layouts.py.
        weights: the trained model: anything that MODEL.WEIGHTS accepts and that is a whole DETR (its class head may be
            missing). "" takes the published one: detr://r50, or detr://r50-panoptic for masks.
        epochs: length of the training.
        output_dir: folder to write to. "" takes outputs/NAME for data/NAME, or the next free outputs/NAME-2, ...
        batch_size: images per iteration and process.
        num_processes: number of processes.
        lr: learning rate; None takes that of the batch (see learning_rate).
        lr_backbone: learning rate of the backbone; 0 freezes it, None takes a tenth of `lr`.
        lr_drop: epochs after which the learning rate drops to a tenth; None takes four fifths of them.
        image_size: short side of the images in pixels, the maximum in training. Half of it takes a quarter of time and
            memory. None takes what the weights were trained with (800 for the published ones).
        patience: stop after this many evaluations, one per epoch, without a better AP; 0 never stops early.
        masks: train masks as well as boxes; the dataset must have them.
        strict: make annotations that cannot be trained on an error; by default they are dropped.
        opts: KEY, VALUE, ... pairs that override all else.

    Raises:
        FileNotFoundError, ConnectionError: the weights cannot be found or downloaded.
        InputError: an argument is wrong, a key does not exist, or the weights are no whole DETR.
    """
    for name, number in {"epochs": epochs, "lr": lr}.items():
        _check_number(name, number, positive=True)
    for name, number in {"lr_backbone": lr_backbone, "lr_drop": lr_drop}.items():
        _check_number(name, number)
    for name, number in {"batch_size": batch_size, "num_processes": num_processes, "image_size": image_size}.items():
        _check_number(name, number, positive=True, whole=True)
    _check_number("patience", patience, whole=True)
    if image_size and image_size < MIN_IMAGE_SIZE:
        raise InputError(f"image_size {image_size}: expected {MIN_IMAGE_SIZE} pixels or more; objects would vanish")
    if image_size and image_size > MAX_SIDE:
        raise InputError(f"image_size {image_size}: expected {MAX_SIDE} pixels or fewer")

    for key, value in {
        "SOLVER.MAX_EPOCHS": epochs, "SOLVER.IMS_PER_BATCH": batch_size * num_processes, "SOLVER.PATIENCE": patience
    }.items():  # fmt: skip
        check_value(key, value)

    cfg = load_config(RECIPES[masks], data=data)
    task = {key: reduce(getitem, key.split("."), cfg) for key in TASK_KEYS}
    merge_options(cfg.clone(), opts)  # raises before anything is downloaded
    given = dict(zip(opts[::2], opts[1::2], strict=False)).get("MODEL.WEIGHTS")
    model, _ = model_config(read_checkpoint(str(given or weights or cfg.MODEL.WEIGHTS)), to_train=True)
    for section in SECTIONS:
        cfg[section] = model[section]
    with error_context(f"config of {cfg.MODEL.WEIGHTS}"):
        check_config(cfg)
    merge_options(cfg, [part for pair in task.items() for part in pair])
    if cfg.MODEL.RESNETS.NORM == "BN" and batch_size < MIN_BATCH_TO_TRAIN_BN:
        cfg.MODEL.RESNETS.NORM = "FrozenBN"
    cfg.DATASETS.STRICT = strict
    cfg.OUTPUT_DIR = str(output_dir) or str(new_output_folder(data))
    cfg.SOLVER.MAX_EPOCHS = epochs
    cfg.SOLVER.IMS_PER_BATCH = batch_size * num_processes
    cfg.SOLVER.BASE_LR = lr or learning_rate(cfg.SOLVER.IMS_PER_BATCH)
    if lr_backbone is not None:
        cfg.SOLVER.BACKBONE_MULTIPLIER = lr_backbone / cfg.SOLVER.BASE_LR
    if lr_drop is not None:
        cfg.SOLVER.STEPS = (lr_drop / epochs,) if 0 < lr_drop < epochs else ()
    cfg.SOLVER.PATIENCE = patience
    if image_size:
        _resize(cfg.INPUT, image_size)
    merge_options(cfg, opts)
    check_config(cfg)
    return cfg


def learning_rate(batch_size: int) -> float:
    """Return 1e-4 for the batch sizes that it was published for; beyond them it grows with the square root (AdamW)."""
    nearest = min(max(batch_size, PUBLISHED_BATCHES[0]), PUBLISHED_BATCHES[1])
    return 1e-4 * math.sqrt(batch_size / nearest)


def new_output_folder(data: str | Path, parent: str | Path = "outputs") -> Path:
    """Return a folder that does not exist yet: outputs/NAME for data/NAME, or outputs/NAME-2, ..."""
    first = Path(parent) / (Path(os.path.expanduser(data)).absolute().name or "run")
    folder, number = first, 1
    while folder.exists():
        number += 1
        folder = first.with_name(f"{first.name}-{number}")
    return folder


def _resize(sizes: CfgNode, short_side: int) -> None:
    """Set the short side of evaluation and the largest one of training; the other sides keep their ratio to them."""
    train_factor = short_side / max(sizes.MIN_SIZE_TRAIN)
    # MIN_SIZE_TEST 0 evaluates images at their own size.
    test_factor = short_side / sizes.MIN_SIZE_TEST if sizes.MIN_SIZE_TEST else train_factor
    sizes.MIN_SIZE_TRAIN = tuple(round(size * train_factor) for size in sizes.MIN_SIZE_TRAIN)
    sizes.MAX_SIZE_TRAIN = round(sizes.MAX_SIZE_TRAIN * train_factor)
    sizes.MIN_SIZE_TEST, sizes.MAX_SIZE_TEST = short_side, round(sizes.MAX_SIZE_TEST * test_factor)


def _check_number(name: str, value: object, *, positive: bool = False, whole: bool = False) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not math.isfinite(value):
        raise InputError(f"{name} {value!r}: expected a {'whole ' * whole}number")
    if value < 0 or (positive and not value):
        raise InputError(f"{name} {value}: expected {'a positive number' if positive else '0 or more'}")
