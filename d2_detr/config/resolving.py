"""What a config leaves open until the data is known: class count, stuff classes, length, seed."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

from d2_detr.config.checking import check_config, check_device, check_training, check_value
from d2_detr.config.reading import read_config
from d2_detr.structures.dataset import Datasets
from d2_detr.utils.errors import InputError, error_context

from detectron2.config import CfgNode
from detectron2.utils import comm

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """The length of a training in iterations, with what happens when."""

    max_iter: int
    steps: tuple[int, ...]  # iterations at which the learning rate drops
    eval_period: int  # iterations between evaluations, 0 for none before the end
    iters_per_epoch: float


def resolve_config(cfg: CfgNode, datasets: Datasets) -> CfgNode:
    """Return a config in which class count, stuff classes and iterations are numbers.

    The result repeats the run, builds the model without the data, and still has the epochs and fractions that were
    asked for, so that it can be made longer. Resolving it again changes nothing.

    Raises:
        InputError: a key has a wrong value, MODEL.DETR.NUM_CLASSES is too small for a dataset, or the schedule is
            contradictory.
    """
    check_config(cfg)
    check_device(cfg.MODEL.DEVICE)
    if datasets.train:
        check_training(cfg, comm.get_world_size())
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DETR.NUM_CLASSES = resolve_num_classes(cfg, datasets)
    if datasets.train and not cfg.MODEL.DETR.STUFF_CLASSES:
        cfg.MODEL.DETR.STUFF_CLASSES = datasets.train[0].stuff_classes
    if float(cfg.SOLVER.MAX_EPOCHS).is_integer():
        cfg.SOLVER.MAX_EPOCHS = int(cfg.SOLVER.MAX_EPOCHS)  # which also Detectron2's own merge accepts for 0
    if datasets.train:
        cfg.SOLVER.MAX_ITER = resolve_schedule(cfg, datasets.num_train_images).max_iter
    return cfg


def resolve_num_classes(cfg: CfgNode, datasets: Datasets) -> int:
    """Return MODEL.DETR.NUM_CLASSES; -1 counts the categories of the first training set (or test set, without one).

    Raises:
        InputError: nothing to count, or fewer than a dataset has. More is a warning.
    """
    num_classes = cfg.MODEL.DETR.NUM_CLASSES
    every = [*datasets.train, *datasets.test]
    if num_classes == -1:
        if not every:
            raise InputError(
                "MODEL.DETR.NUM_CLASSES -1 counts the classes of the training set, but DATASETS.TRAIN is empty; set "
                "one of them"
            )
        num_classes = len(every[0].label_map)
    for dataset in every:
        found = len(dataset.label_map)
        if num_classes < found:
            raise InputError(
                f"MODEL.DETR.NUM_CLASSES is {num_classes}, but dataset {dataset.name} has {found} categories; set it "
                f"to {found}, or to -1 to count"
            )
        if num_classes > found:
            logger.warning(
                "MODEL.DETR.NUM_CLASSES is %d, but dataset %s has %d categories: the other %d rows of the class head "
                "only learn that they never occur",
                num_classes, dataset.name, found, num_classes - found,
            )  # fmt: skip
    return num_classes


def resolve_schedule(cfg: CfgNode, num_images: int) -> Schedule:
    """Convert SOLVER.MAX_EPOCHS, STEPS (then fractions) and TEST.EVAL_EPOCHS to iterations.

    Args:
        cfg: epochs have precedence over MAX_ITER, EVAL_PERIOD over EVAL_EPOCHS.
        num_images: images per epoch.

    Raises:
        InputError: STEPS are iterations where fractions are expected, or vice versa; PATIENCE without evaluations.
    """
    solver = cfg.SOLVER
    if solver.STEPS and all(0 < step < 1 for step in solver.STEPS) != bool(solver.MAX_EPOCHS):
        raise InputError(
            f"SOLVER.STEPS {solver.STEPS} with MAX_EPOCHS {solver.MAX_EPOCHS}: steps are fractions of the training in "
            "(0, 1) if MAX_EPOCHS is set, and iterations if it is 0"
        )
    iters_per_epoch = num_images / solver.IMS_PER_BATCH
    max_iter, steps = solver.MAX_ITER, tuple(solver.STEPS)
    if solver.MAX_EPOCHS:
        max_iter = math.ceil(solver.MAX_EPOCHS * iters_per_epoch)
        steps = tuple(sorted({step for fraction in steps if 0 < (step := round(fraction * max_iter)) < max_iter}))
    eval_period = cfg.TEST.EVAL_PERIOD or math.ceil(cfg.TEST.EVAL_EPOCHS * iters_per_epoch)
    if solver.PATIENCE and not (eval_period and cfg.DATASETS.TEST):
        raise InputError(
            f"SOLVER.PATIENCE {solver.PATIENCE} counts evaluations without a better AP, but there are none; set "
            "DATASETS.TEST and TEST.EVAL_EPOCHS"
        )
    steps = tuple(step for step in steps if step != max_iter)  # which the scheduler refuses, and has no effect
    return Schedule(max_iter, steps, eval_period, iters_per_epoch)


def resolve_seed(cfg: CfgNode, *, resume: bool) -> int:
    """Return SEED; if negative, that of the training that is resumed, else a random one, the same in all processes.

    Raises:
        InputError: the config.yaml of the training that is resumed is damaged.
    """
    seed, written = cfg.SEED, Path(cfg.OUTPUT_DIR) / "config.yaml"
    if seed < 0 and resume and written.is_file():
        for setting in read_config(written):
            if setting.key == "SEED":
                seed = setting.value
                with error_context(setting.place):
                    check_value("SEED", seed)
    [seed, *_] = comm.all_gather(seed)  # another machine may not see the file
    return seed if seed >= 0 else comm.shared_random_seed()
