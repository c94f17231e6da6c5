"""From command line arguments to a complete config."""

from __future__ import annotations

import argparse
import logging
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from d2_detr.checkpoint.adapt import PARTS
from d2_detr.checkpoint.checkpointer import NOT_FROZEN, read_adapted
from d2_detr.checkpoint.weights import is_imagenet_weights
from d2_detr.config.keys import add_detr_config, config_path
from d2_detr.data.datasets import custom, panoptic
from d2_detr.data.datasets.classes import check_num_classes, resolve_num_classes, resolve_stuff_classes
from d2_detr.data.validation.class_table import look_at_data
from d2_detr.engine.logs import console_spared, start_logs
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import atomic_write

from detectron2.config import CfgNode, get_cfg
from detectron2.data import get_detection_dataset_dicts
from detectron2.engine import default_setup
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm

logger = logging.getLogger(__name__)


def load_config(config_file: str, opts: Sequence[str], data: str = "") -> CfgNode:
    """Defaults, overridden by a file (a path or the bare name of a shipped one) and by KEY VALUE pairs.

    MODEL.DEVICE "cuda" becomes "cpu" where there is no CUDA device. A dataset of one's own is registered.

    Args:
        data: folder of a dataset of one's own (see data/layouts.py), in place of the file's datasets; its classes are
            counted.

    Raises:
        InputError: no such file, or a key that does not exist.
    """
    cfg = get_cfg()
    add_detr_config(cfg)
    if config_file:
        try:
            cfg.merge_from_file(str(config_path(config_file)), allow_unsafe=False)
        except KeyError as error:
            raise InputError(f"config {config_file}: {error.args[0]}") from error
    if data:
        complete = cfg.clone()
        merge_options(complete, opts)
        suffix = panoptic.SUFFIX if complete.MODEL.DETR.PANOPTIC_ON else ""
        cfg.DATASETS.CUSTOM = data
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (custom.TRAIN + suffix,), (custom.VAL + suffix,)
        cfg.MODEL.DETR.NUM_CLASSES = -1
    merge_options(cfg, opts)
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"  # Detectron2's default names a GPU that this machine does not have
    register_datasets(cfg)
    return cfg


def merge_options(cfg: CfgNode, opts: Sequence[str]) -> None:
    """Put KEY VALUE pairs into a config.

    Raises:
        InputError: a key that does not exist, or a value of another type than the key's.
    """
    try:
        cfg.merge_from_list(list(opts))
    except (KeyError, ValueError) as error:
        raise InputError(f"options {' '.join(map(str, opts))}: {error.args[0]}") from error
    except AssertionError as error:
        raise InputError(f"options {' '.join(opts)}: {error}; options come in pairs, KEY VALUE") from error


def register_datasets(cfg: CfgNode) -> None:
    if cfg.DATASETS.CUSTOM:
        custom.register_custom(cfg.DATASETS.CUSTOM)


def setup(cfg: CfgNode, *, evaluation_only: bool = False, resume: bool = False) -> CfgNode:
    """The config of a run, with what follows from the data filled in, and Detectron2's default_setup done.

    Mistakes in the data and in MODEL.WEIGHTS show here, before anything is written but a line in the log.

    The config that is logged and written to OUTPUT_DIR has the class count, the stuff, the iterations and the seed as
    numbers, so that it repeats the run and builds the model without the data. An evaluation leaves that of a training
    as it is.

    Args:
        resume: a checkpoint in OUTPUT_DIR, if there is one, comes in place of MODEL.WEIGHTS.
    """
    if Path(cfg.OUTPUT_DIR).is_file():
        raise InputError(f"OUTPUT_DIR {cfg.OUTPUT_DIR}: a file, expected a folder to write to")
    cfg = cfg.clone()
    start_logs(cfg.OUTPUT_DIR)
    register_datasets(cfg)  # in this process
    check_num_classes(cfg)
    cfg.MODEL.DETR.NUM_CLASSES = resolve_num_classes(cfg)
    if cfg.MODEL.DETR.PANOPTIC_ON:
        panoptic.check_panoptic((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))
    cfg.MODEL.DETR.STUFF_CLASSES = resolve_stuff_classes(cfg)
    if not evaluation_only:
        resolve_schedule(cfg)
        resolve_weights(cfg)
        cfg.SEED = _seed(cfg, resume=resume)
        logger.info("Seed: %d (SEED; with it the same is learned again)", cfg.SEED)
    if comm.is_main_process():
        if not (resume and is_begun(cfg.OUTPUT_DIR)):
            check_weights(cfg, evaluation_only=evaluation_only)
        look_at_data(cfg, evaluation_only=evaluation_only)
    cfg.freeze()
    written = Path(cfg.OUTPUT_DIR) / "config.yaml"
    of_training = written.read_text() if evaluation_only and written.is_file() else ""
    with console_spared():
        default_setup(cfg, argparse.Namespace(command=shlex.join(sys.argv), eval_only=evaluation_only, resume=resume))
    if of_training and comm.is_main_process():
        with atomic_write(written) as temporary:
            temporary.write_text(of_training)
    logger.info("Environment, config and model are in %s", Path(cfg.OUTPUT_DIR) / "log.txt")
    return cfg


def _seed(cfg: CfgNode, *, resume: bool) -> int:
    """That of the config, or of the training that goes on, or one that is drawn, the same in all processes."""
    seed, written = cfg.SEED, Path(cfg.OUTPUT_DIR) / "config.yaml"
    if seed < 0 and resume and written.is_file():
        seed = yaml.safe_load(written.read_text()).get("SEED", -1)
    [seed, *_] = comm.all_gather(seed)  # another machine may not see the file
    return seed if seed >= 0 else comm.shared_random_seed()


def is_begun(output_dir: str | Path) -> bool:
    """Whether a training has left a checkpoint there to go on from."""
    return (Path(output_dir) / "last_checkpoint").is_file()


def check_weights(cfg: CfgNode, *, evaluation_only: bool) -> None:
    """See that MODEL.WEIGHTS and, for a training, MODEL.DETR.FROZEN_WEIGHTS can be had and fit the model of the config,
    which takes no memory here.

    Raises:
        FileNotFoundError, ConnectionError, InputError: they do not.
    """
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg).state_dict()
    if cfg.MODEL.WEIGHTS:
        read_adapted(cfg.MODEL.WEIGHTS, model, may_reinitialize=() if evaluation_only else PARTS)
    if cfg.MODEL.DETR.FROZEN_WEIGHTS and not evaluation_only:
        read_adapted(cfg.MODEL.DETR.FROZEN_WEIGHTS, model, may_reinitialize=NOT_FROZEN)


def resolve_weights(cfg: CfgNode) -> None:
    """Without ImageNet's weights where a whole detector comes in place of them: they would be fetched for nothing."""
    if cfg.MODEL.DETR.FROZEN_WEIGHTS and is_imagenet_weights(cfg.MODEL.WEIGHTS):
        logger.info(
            "MODEL.WEIGHTS %s is not read: the detector of MODEL.DETR.FROZEN_WEIGHTS has its own backbone",
            cfg.MODEL.WEIGHTS,
        )
        cfg.MODEL.WEIGHTS = ""


def resolve_schedule(cfg: CfgNode) -> None:
    """Turn SOLVER.MAX_EPOCHS, with STEPS as fractions of the whole, and TEST.EVAL_EPOCHS into iterations."""
    solver = cfg.SOLVER
    fractions = all(0 < step < 1 for step in solver.STEPS)
    if solver.MAX_EPOCHS < 0:
        raise InputError(f"SOLVER.MAX_EPOCHS {solver.MAX_EPOCHS}: expected a positive number, or 0 to use MAX_ITER")
    if solver.STEPS and fractions != bool(solver.MAX_EPOCHS):
        raise InputError(
            f"SOLVER.STEPS {solver.STEPS} with MAX_EPOCHS {solver.MAX_EPOCHS}: steps are fractions of the training in "
            "(0, 1) when MAX_EPOCHS is set, and iterations when it is 0"
        )
    if not (solver.MAX_EPOCHS or cfg.TEST.EVAL_EPOCHS):
        return
    num_pictures = num_train_pictures(cfg)
    epoch = num_pictures / solver.IMS_PER_BATCH  # in iterations
    if solver.MAX_EPOCHS:
        solver.MAX_ITER = math.ceil(solver.MAX_EPOCHS * epoch)
        steps = {round(step * solver.MAX_ITER) for step in solver.STEPS}
        solver.STEPS = tuple(sorted(step for step in steps if 0 < step < solver.MAX_ITER))
        logger.info(
            "Epochs: %g of %d pictures, %d at a time, so %d iterations; learning rate %.3g%s",
            solver.MAX_EPOCHS, num_pictures, solver.IMS_PER_BATCH, solver.MAX_ITER, solver.BASE_LR,
            f", lowered at {', '.join(map(str, solver.STEPS))}" if solver.STEPS else "",
        )  # fmt: skip
        solver.MAX_EPOCHS = 0
    if cfg.TEST.EVAL_EPOCHS and not cfg.TEST.EVAL_PERIOD:
        cfg.TEST.EVAL_PERIOD = math.ceil(cfg.TEST.EVAL_EPOCHS * epoch)
    cfg.TEST.EVAL_EPOCHS = 0


def num_train_pictures(cfg: CfgNode) -> int:
    """Pictures of an epoch."""
    dicts = get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS, check_consistency=False
    )
    return len(dicts)
