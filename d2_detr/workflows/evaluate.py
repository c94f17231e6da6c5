"""An evaluation, in every process of the group: from a config to metrics and a report."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from d2_detr.checkpoint.checkpointer import DetrCheckpointer
from d2_detr.checkpoint.resume import newest_checkpoint
from d2_detr.config import load_config
from d2_detr.evaluation.evaluate import evaluate_model, panoptic_quality, results_file
from d2_detr.report.contents import write_report
from d2_detr.utils.errors import InputError
from d2_detr.utils.locks import locked
from d2_detr.workflows.prepare_run import prepare_run

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.modeling import build_model
from detectron2.utils import comm

logger = logging.getLogger(__name__)


def evaluate(cfg: CfgNode, *, resume: bool = False) -> dict[str, Any]:
    """Evaluate MODEL.WEIGHTS on DATASETS.TEST.

    Results and report are written to OUTPUT_DIR/inference, or to a folder below it if the config.yaml in OUTPUT_DIR is
    about other data: the evaluation of a test split does not replace that of the validation.

    Args:
        cfg: the config as it was loaded.
        resume: evaluate the last checkpoint in OUTPUT_DIR instead, if there is one.

    Returns:
        In the main process, the metrics: {"bbox": {"AP": ...}, ...}, by dataset if there are several.

    Raises:
        InputError: there is nothing to evaluate on, or another run uses OUTPUT_DIR; or see prepare_run.
    """
    if not cfg.DATASETS.TEST:
        raise InputError("DATASETS.TEST is empty: there is nothing to evaluate on; give --data FOLDER or set the key")
    with locked(cfg.OUTPUT_DIR) if comm.is_main_process() else nullcontext():
        return _evaluate(cfg, resume=resume)


def _evaluate(cfg: CfgNode, *, resume: bool) -> dict[str, Any]:
    folder = _evaluation_folder(cfg)
    cfg, datasets = prepare_run(cfg, evaluation_only=True, resume=resume)
    model = build_model(cfg)
    label_map = datasets.test[0].label_map.extended(cfg.MODEL.DETR.NUM_CLASSES)
    checkpointer = DetrCheckpointer(model, cfg.OUTPUT_DIR, label_map=label_map, may_reinitialize=())
    checkpoint = newest_checkpoint(cfg.OUTPUT_DIR) if resume else None
    weights = str(checkpoint.path) if checkpoint else cfg.MODEL.WEIGHTS
    logger.info("Evaluating %s on %s", weights, ", ".join(cfg.DATASETS.TEST))
    checkpointer.load(checkpoint or weights)
    results = evaluate_model(cfg, model, datasets.test, folder=folder)
    if comm.is_main_process():
        verify_results(cfg, results)
        if cfg.TEST.REPORT:
            write_report(
                folder / "report.html",
                cfg,
                model.eval(),
                weights,
                dataset=datasets.test[0],
                results_file=results_file(cfg, folder),
                panoptic_quality=panoptic_quality(cfg, results),
            )
    return results


def _evaluation_folder(cfg: CfgNode) -> Path:
    folder, written = Path(cfg.OUTPUT_DIR) / "inference", Path(cfg.OUTPUT_DIR) / "config.yaml"
    if not written.is_file() or _same_datasets(written, cfg):
        return folder
    root = [Path(cfg.DATASETS.CUSTOM).absolute().name] if cfg.DATASETS.CUSTOM else []
    return folder / "_".join([*root, *cfg.DATASETS.TEST])


def _same_datasets(written: Path, cfg: CfgNode) -> bool:
    """Return whether a config.yaml is about the datasets of a config; one that cannot be read is not."""
    try:
        trained = load_config(written)
    except InputError:
        return False
    return (trained.DATASETS.CUSTOM, trained.DATASETS.TEST) == (cfg.DATASETS.CUSTOM, cfg.DATASETS.TEST)
