"""What every training and evaluation begins with."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from pathlib import Path

from d2_detr.checkpoint.check import check_weights
from d2_detr.checkpoint.weights import is_imagenet_weights
from d2_detr.config.checking import check_config
from d2_detr.config.resolving import resolve_config, resolve_schedule, resolve_seed
from d2_detr.data.datasets import load_datasets
from d2_detr.data.validation.validate import validate_data
from d2_detr.engine.logs import setup_logging
from d2_detr.structures.dataset import Datasets
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import atomic_write

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm

logger = logging.getLogger(__name__)


def prepare_run(cfg: CfgNode, *, evaluation_only: bool = False, resume: bool = False) -> tuple[CfgNode, Datasets]:
    """Read the data, complete the config, validate both and MODEL.WEIGHTS, and set up logging, config.yaml and seeds.

    All checks run before config.yaml is written. It has everything as numbers, so that it repeats the run; an
    evaluation does not overwrite that of a training.

    Args:
        cfg: the config as it was loaded.
        evaluation_only: leave DATASETS.TRAIN and SOLVER alone.
        resume: a checkpoint in OUTPUT_DIR, if there is one, replaces MODEL.WEIGHTS.

    Returns:
        The frozen config, and its datasets.

    Raises:
        FileNotFoundError, ConnectionError, InputError: something is missing or wrong.
    """
    check_config(cfg)
    if Path(cfg.OUTPUT_DIR).is_file():
        raise InputError(f"OUTPUT_DIR {cfg.OUTPUT_DIR}: a file, expected a folder to write to")
    setup_logging(cfg.OUTPUT_DIR, tables=evaluation_only)
    datasets = load_datasets(cfg, evaluation_only=evaluation_only)
    cfg = resolve_config(cfg, datasets)
    if not evaluation_only:
        _log_schedule(cfg, datasets)
        _skip_unused_weights(cfg)
        cfg.SEED = resolve_seed(cfg, resume=resume)
        logger.info("Seed: %d (SEED in config.yaml, which reproduces this run)", cfg.SEED)
    if comm.is_main_process():
        if not (resume and has_checkpoint(cfg.OUTPUT_DIR)):
            check_weights(cfg, evaluation_only=evaluation_only)
        validate_data(
            datasets.train,
            datasets.test,
            num_queries=cfg.MODEL.DETR.NUM_OBJECT_QUERIES,
            with_masks=cfg.MODEL.MASK_ON,
        )
    cfg.freeze()
    _write_config(cfg, evaluation_only=evaluation_only, resume=resume)
    return cfg, datasets


def has_checkpoint(output_dir: str | Path) -> bool:
    """Return whether a training has left a checkpoint in a folder, from which it can be resumed."""
    return (Path(output_dir) / "last_checkpoint").is_file()


def _log_schedule(cfg: CfgNode, datasets: Datasets) -> None:
    num_images, solver = datasets.num_train_images, cfg.SOLVER
    if solver.MAX_EPOCHS:
        steps = resolve_schedule(cfg, num_images).steps
        logger.info(
            "Training for %g epochs of %d images, %d per iteration: %d iterations, learning rate %.3g%s",
            solver.MAX_EPOCHS, num_images, solver.IMS_PER_BATCH, solver.MAX_ITER, solver.BASE_LR,
            f", dropping at {', '.join(map(str, steps))}" if steps else "",
        )  # fmt: skip


def _skip_unused_weights(cfg: CfgNode) -> None:
    """Drop ImageNet weights that a whole detector replaces: they would be downloaded for nothing."""
    if cfg.MODEL.DETR.FROZEN_WEIGHTS and is_imagenet_weights(cfg.MODEL.WEIGHTS):
        logger.info(
            "MODEL.WEIGHTS %s is not read: the detector of MODEL.DETR.FROZEN_WEIGHTS has its own backbone",
            cfg.MODEL.WEIGHTS,
        )
        cfg.MODEL.WEIGHTS = ""


def _write_config(cfg: CfgNode, *, evaluation_only: bool, resume: bool) -> None:
    written = Path(cfg.OUTPUT_DIR) / "config.yaml"
    config_of_training = written.read_text() if evaluation_only and written.is_file() else ""
    default_setup(cfg, argparse.Namespace(command=shlex.join(sys.argv), eval_only=evaluation_only, resume=resume))
    if config_of_training and comm.is_main_process():
        with atomic_write(written) as temporary:
            temporary.write_text(config_of_training)
    logger.info("Environment, config and model are in %s", Path(cfg.OUTPUT_DIR) / "log.txt")
