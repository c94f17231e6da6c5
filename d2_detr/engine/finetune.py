"""Fine-tuning a trained DETR on a dataset of one's own, from few words: what they mean as a config.

How it learns is the recipe of detr_r50_custom.yaml, or of detr_segm_r50_custom.yaml with masks; the model is that of
the weights, of any size.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from d2_detr.engine.checkpoint_config import SECTIONS, config_of
from d2_detr.engine.run import train
from d2_detr.engine.setup import is_begun, load_config, merge_options
from d2_detr.errors import InputError

from detectron2.config import CfgNode

RECIPES = {False: "detr_r50_custom.yaml", True: "detr_segm_r50_custom.yaml"}  # without masks, with them
# What the recipe decides in the sections of the config that come with the weights.
OF_THE_TASK = (
    "MODEL.MASK_ON", "MODEL.DETR.NUM_CLASSES", "MODEL.DETR.SCORE_THRESH_TEST", "MODEL.DETR.PANOPTIC_ON",
    "MODEL.DETR.STUFF_CLASSES", "INPUT.MASK_FORMAT",
)  # fmt: skip
FULL_RATE_BATCH = 4


def finetune(data: str | Path, weights: str | Path = "detr://r50", *, resume: bool = False, **options: Any) -> dict:
    """Fine-tune here, in this process; see finetune_config for the rest of the arguments.

    Args:
        resume: go on with the training that was interrupted in `output_dir`.

    Returns:
        The last evaluation, as {"bbox": {"AP": ..., "AP50": ...}, ...}; all else lies in `output_dir`.
    """
    return train(finetune_config(data, weights, resume=resume, **options), resume=resume)


def finetune_config(
    data: str | Path,
    weights: str | Path = "detr://r50",
    *,
    epochs: float = 10,
    output_dir: str | Path = "outputs",
    batch_size: int = 2,
    lr: float = 0,
    masks: bool = False,
    opts: Sequence[str] = (),
    resume: bool = False,
) -> CfgNode:
    """The config of a fine-tuning, complete but for what `setup` counts in the data.

    Args:
        data: folder of the dataset, in one of the layouts of data/layouts.py.
        weights: the trained model: whatever MODEL.WEIGHTS takes, as long as it is a whole DETR.
        output_dir: folder for all that is written; one that holds a training is refused, unless it is to `resume`.
        batch_size: pictures in an iteration, of all processes together.
        lr: learning rate; 0 for that of the batch (see learning_rate). The backbone has a tenth.
        masks: learn masks besides boxes, of a dataset that has them.
        opts: KEY VALUE pairs that win over all else.

    Raises:
        FileNotFoundError, ConnectionError, InputError: the weights cannot be had or read, or are of no whole DETR; a
            number that makes no sense, a key that does not exist.
    """
    if is_begun(output_dir) and not resume:
        raise InputError(f"{output_dir} holds a training; go on with it (--continue), or write to another folder")
    for name, value in {"epochs": epochs, "batch size": batch_size}.items():
        if value <= 0:
            raise InputError(f"{name} {value}: expected a positive number")
    cfg = load_config(RECIPES[masks], [], str(data))
    model, _ = config_of(str(weights))
    pairs = [pair for section in SECTIONS for pair in _pairs(model[section], section)]
    merge_options(cfg, [part for pair in pairs if pair[0] not in OF_THE_TASK for part in pair])
    cfg.OUTPUT_DIR = str(output_dir)
    cfg.DATALOADER.NUM_WORKERS = min(cfg.DATALOADER.NUM_WORKERS, os.cpu_count() or 1)
    cfg.SOLVER.MAX_EPOCHS = epochs
    cfg.SOLVER.IMS_PER_BATCH = batch_size
    cfg.SOLVER.BASE_LR = lr or learning_rate(batch_size)
    merge_options(cfg, opts)
    return cfg


def learning_rate(batch_size: int) -> float:
    """The paper's 1e-4, which has been used for batches from 4 to 64; smaller ones, whose gradients are noisier, have
    the square root of their share, as AdamW wants it."""
    return 1e-4 * min(1.0, math.sqrt(batch_size / FULL_RATE_BATCH))


def _pairs(node: CfgNode, key: str) -> Iterator[tuple[str, Any]]:
    """Keys and values below a node, itself at `key`."""
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from _pairs(value, f"{key}.{name}")
        else:
            yield f"{key}.{name}", value
