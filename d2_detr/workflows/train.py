"""A training, in every process of the group: from a config to a trained model and its report."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from d2_detr.checkpoint.checkpointer import BEST, load_model
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.checkpoint.resume import has_checkpoint
from d2_detr.engine.distributed import num_gpus_option
from d2_detr.engine.trainer import Trainer
from d2_detr.evaluation.evaluate import panoptic_quality, results_file
from d2_detr.report.contents import write_report
from d2_detr.utils.command_line import command
from d2_detr.utils.errors import InputError, Interrupted
from d2_detr.utils.locks import locked
from d2_detr.visualization.curves import read_metrics
from d2_detr.visualization.training_images import TRAINING_IMAGES, save_training_images
from d2_detr.workflows.prepare_run import prepare_run

from detectron2.config import CfgNode
from detectron2.utils import comm

logger = logging.getLogger(__name__)


def train(cfg: CfgNode, *, resume: bool = False) -> dict[str, Any]:
    """Train, evaluate and report in cfg.OUTPUT_DIR.

    Args:
        cfg: the config as it was loaded.
        resume: continue from the last checkpoint in OUTPUT_DIR, if there is one.

    Returns:
        In the main process, the evaluation of the best model: {"bbox": {"AP": ...}, ...}.

    Raises:
        InputError: another run uses OUTPUT_DIR, or without `resume` it contains a training; or see prepare_run.
        Interrupted: a signal has asked to stop; what was learned is saved.
    """
    if has_checkpoint(cfg.OUTPUT_DIR) and not resume:
        raise InputError(
            f"{cfg.OUTPUT_DIR} contains a training; continue it "
            f"({command('finetune', '--continue', '--output', cfg.OUTPUT_DIR)}), evaluate it "
            f"({command('evaluate', '--config', Path(cfg.OUTPUT_DIR) / 'config.yaml')}), or give another --output"
        )
    with locked(cfg.OUTPUT_DIR) if comm.is_main_process() else nullcontext():
        return _train(cfg, resume=resume)


def _train(cfg: CfgNode, *, resume: bool) -> dict[str, Any]:
    cfg, datasets = prepare_run(cfg, resume=resume)
    trainer = Trainer(cfg, datasets)
    trainer.resume_or_load(resume=resume)
    if trainer.start_iter >= trainer.max_iter or trainer.stopped:
        logger.info("The training in %s is complete: it is only evaluated again", cfg.OUTPUT_DIR)
    if cfg.TEST.REPORT and comm.is_main_process() and not trainer.start_iter:
        path = Path(cfg.OUTPUT_DIR) / TRAINING_IMAGES
        save_training_images(cfg, datasets.train[0], path)
        logger.info("Training images as the model sees them: %s", path)
    try:
        results = trainer.train()
    except (Interrupted, InputError, OSError) as error:
        _log_how_to_continue(trainer, "Interrupted" if isinstance(error, Interrupted) else "The training has ended")
        raise
    if cfg.TEST.REPORT and comm.is_main_process():
        try:
            _report(trainer)
        except Exception:  # a failing report must not make hours of training look lost
            logger.exception("The training is complete, but its report failed")
    return results


def _log_how_to_continue(trainer: Trainer, what: str) -> None:
    output, saved = trainer.cfg.OUTPUT_DIR, max(trainer.checkpointer.saved_iteration + 1, trainer.start_iter)
    again = command("finetune", "--continue", "--output", output, *num_gpus_option())
    if saved:
        logger.info("%s; %d of %d iterations are saved. To continue: %s", what, saved, trainer.max_iter, again)
    else:
        logger.info("%s before there was anything to save. To start again: %s", what, again)
    if (Path(output) / "report.html").is_file():
        logger.info("%s/report.html is from before this part of the training", output)


def _report(trainer: Trainer) -> None:
    """Write report.html about the best model, or about the last one if none is kept."""
    cfg, datasets, best, output = trainer.cfg, trainer.datasets, trainer.best, Path(trainer.cfg.OUTPUT_DIR)
    if best and best.best_iteration >= 0:
        name, results, evaluation, iteration = BEST, best.best_results_file, best.best_evaluation, best.best_iteration
    else:
        name, results, evaluation = "model_final", results_file(cfg), trainer._last_eval_results
        iteration = trainer.iter - 1
    weights, metrics = output / f"{name}.pth", output / "metrics.json"
    logger.info("Writing the report about %s", weights.name)
    write_report(
        output / "report.html",
        cfg,
        load_model(cfg, read_checkpoint(weights)),
        weights,
        dataset=datasets.test[0] if datasets.test else None,
        train_datasets=datasets.train,
        results_file=results,
        panoptic_quality=panoptic_quality(cfg, evaluation),
        metrics=read_metrics(metrics) if metrics.is_file() else (),
        iteration=iteration,
    )
