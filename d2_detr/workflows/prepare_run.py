"""What every training and evaluation begins with."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path

from d2_detr.checkpoint.check import check_weights
from d2_detr.checkpoint.resume import has_checkpoint
from d2_detr.checkpoint.weights import is_imagenet_weights
from d2_detr.config.checking import check_config
from d2_detr.config.resolving import resolve_config, resolve_schedule, resolve_seed
from d2_detr.data.datasets import load_datasets
from d2_detr.data.validation.validate import validate_data
from d2_detr.engine.logs import setup_logging
from d2_detr.engine.reproducibility import make_reproducible
from d2_detr.structures.dataset import Datasets
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import atomic_write, remove_leftovers

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info

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
    if "?" in cfg.OUTPUT_DIR:  # Detectron2's checkpointer takes what follows for a query
        raise InputError(f"OUTPUT_DIR {cfg.OUTPUT_DIR}: a question mark cannot be part of it; give another folder")
    setup_logging(cfg.OUTPUT_DIR, tables=evaluation_only)
    if comm.is_main_process():
        remove_leftovers(cfg.OUTPUT_DIR)
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
    _write_config(cfg, evaluation_only=evaluation_only)
    make_reproducible(cfg)
    return cfg, datasets


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


def _write_config(cfg: CfgNode, *, evaluation_only: bool) -> None:
    """Write config.yaml and log the setup, as Detectron2's default_setup does, which would write the file in place."""
    logger.debug("Rank %d of a world size of %d", comm.get_rank(), comm.get_world_size())
    logger.debug("Environment:\n%s", collect_env_info())
    logger.debug("Command: %s", shlex.join(sys.argv))
    logger.debug("Config:\n%s", cfg.dump())
    written = Path(cfg.OUTPUT_DIR) / "config.yaml"
    if comm.is_main_process() and not (evaluation_only and written.is_file()):
        with atomic_write(written) as temporary:
            temporary.write_text(cfg.dump())
    logger.info("Environment, config and model are in %s", Path(cfg.OUTPUT_DIR) / "log.txt")
