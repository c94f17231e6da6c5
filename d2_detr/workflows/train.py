"""A whole run, in every process of the group: from a config to a trained or an evaluated model."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

from d2_detr.checkpoint.checkpointer import DetrCheckpointer
from d2_detr.data.datasets.classes import dataset_label_map
from d2_detr.engine.distributed import as_many_processes
from d2_detr.engine.trainer import Trainer, panoptic_quality, results_file
from d2_detr.report.contents import write_report
from d2_detr.utils.errors import InputError
from d2_detr.visualization.training_images import FILE_NAME, save_training_pictures
from d2_detr.workflows.setup import is_begun, setup

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm

logger = logging.getLogger(__name__)


def train(cfg: CfgNode, *, resume: bool = False) -> dict | None:
    """Train, evaluate and report in cfg.OUTPUT_DIR.

    Args:
        resume: go on from the last checkpoint there, if there is one.

    Returns:
        The last evaluation, in the main process.

    Raises:
        InputError: without `resume`, a training has left its checkpoints there.
    """
    if is_begun(cfg.OUTPUT_DIR) and not resume:
        raise InputError(
            f"{cfg.OUTPUT_DIR} holds a training; go on with it (finetune.py --continue, train_net.py --resume), "
            "evaluate it (train_net.py --eval-only), or write to another folder"
        )
    trainer = Trainer(setup(cfg, resume=resume))
    trainer.resume_or_load(resume=resume)
    if trainer.start_iter >= trainer.max_iter:
        logger.info("The training in %s is complete: it is evaluated again, no more", cfg.OUTPUT_DIR)
    if cfg.TEST.REPORT and comm.is_main_process() and not trainer.start_iter:
        save_training_pictures(trainer.cfg, Path(cfg.OUTPUT_DIR) / FILE_NAME)
        logger.info("The training pictures as the model sees them: %s", Path(cfg.OUTPUT_DIR) / FILE_NAME)
    try:
        return trainer.train()
    except KeyboardInterrupt:
        command = shlex.join(["--continue", "--output-dir", cfg.OUTPUT_DIR, *as_many_processes()])
        if trainer.checkpointer.saved_last or trainer.start_iter:
            logger.info("Interrupted. To go on: python tools/finetune.py %s", command)
        else:
            logger.info(
                "Interrupted before there was anything to keep. To begin anew: python tools/finetune.py %s", command
            )
        raise


def evaluate(cfg: CfgNode, *, resume: bool = False) -> dict | None:
    """Evaluate MODEL.WEIGHTS, or with `resume` the last checkpoint in cfg.OUTPUT_DIR; report in `inference` there."""
    cfg = setup(cfg, evaluation_only=True, resume=resume)
    model = Trainer.build_model(cfg)
    label_map = dataset_label_map(cfg.DATASETS.TEST[0])
    checkpointer = DetrCheckpointer(model, cfg.OUTPUT_DIR, label_map=label_map, may_reinitialize=())
    weights = checkpointer.get_checkpoint_file() if resume and is_begun(cfg.OUTPUT_DIR) else cfg.MODEL.WEIGHTS
    checkpointer.load(weights)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
        if cfg.TEST.REPORT:
            found = {"results_file": results_file(cfg), "panoptic_quality": panoptic_quality(cfg, results)}
            write_report(Path(cfg.OUTPUT_DIR) / "inference" / "report.html", cfg, model.eval(), weights, **found)
    return results
