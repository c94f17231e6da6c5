"""Validation of a dataset without a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from d2_detr.config import load_config, resolve_config
from d2_detr.config.keys import CUSTOM_TEST, CUSTOM_VAL
from d2_detr.data.datasets import load_datasets
from d2_detr.data.datasets.layouts import find_layout
from d2_detr.data.validation.validate import validate_data
from d2_detr.workflows.finetune import RECIPES


def check(data: str | Path, *, masks: bool = False, strict: bool = False, opts: Sequence[object] = ()) -> None:
    """Read and validate a custom dataset as `finetune` would, log its classes and what looks wrong.

    Args:
        data: folder of the dataset.
        masks: every object must have a mask.
        strict: annotations that cannot be trained on are an error.
        opts: KEY, VALUE, ... pairs that override the config of a fine-tuning.

    Raises:
        FileNotFoundError, InputError: the dataset cannot be trained on.
    """
    cfg = load_config(RECIPES[masks], opts, data)
    splits = find_layout(Path(data).expanduser()).splits
    if splits[CUSTOM_TEST].annotations.is_file() and splits[CUSTOM_TEST] != splits[CUSTOM_VAL]:
        cfg.DATASETS.TEST = (CUSTOM_VAL, CUSTOM_TEST)
    cfg.DATASETS.STRICT = strict or cfg.DATASETS.STRICT
    datasets = load_datasets(cfg)
    cfg = resolve_config(cfg, datasets)
    validate_data(datasets.train, datasets.test, num_queries=cfg.MODEL.DETR.NUM_OBJECT_QUERIES, with_masks=masks)
