"""A summary of a run: its data, model and training."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from d2_detr.data.validation.statistics import compute_stats
from d2_detr.structures.dataset import Dataset

from detectron2.config import CfgNode


def summarize_run(
    cfg: CfgNode,
    model: nn.Module,
    weights: str | Path,
    *,
    dataset: Dataset | None,
    train_datasets: Sequence[Dataset],
    metrics: Sequence[dict],
    iteration: int,
) -> dict[str, dict[str, str]]:
    """Return title -> name -> value. See write_report for the arguments."""
    folder = {"folder": cfg.DATASETS.CUSTOM} if cfg.DATASETS.CUSTOM else {}
    training = {"training": _count_objects(train_datasets)} if train_datasets else {}
    evaluation = {"evaluation": _count_objects([dataset])} if dataset else {}
    summary = {"Data": folder | training | evaluation, "Model": _summarize_model(cfg, model, weights)}
    if metrics:
        summary["Training"] = _summarize_training(cfg, metrics, iteration)
    return summary


def _count_objects(datasets: Sequence[Dataset]) -> str:
    stats = compute_stats(datasets)
    num_classes = len(stats.boxes_per_class)
    return (
        f"{stats.title}: {stats.num_images} images ({stats.num_empty} without objects), "
        f"{stats.num_boxes} objects of {num_classes} {'class' if num_classes == 1 else 'classes'}"
    )


def _summarize_model(cfg: CfgNode, model: nn.Module, weights: str | Path) -> dict[str, str]:
    detr, sizes = cfg.MODEL.DETR, cfg.INPUT
    dilated = ", dilated (DC5)" if cfg.MODEL.RESNETS.RES5_DILATION == 2 else ""
    masks = ", mask head" if cfg.MODEL.MASK_ON else ""
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    resized = f"shorter side {sizes.MIN_SIZE_TEST} pixels, longer side at most {sizes.MAX_SIZE_TEST}"
    return {
        "checkpoint": str(weights),
        "network": f"ResNet-{cfg.MODEL.RESNETS.DEPTH}{dilated}, {detr.ENC_LAYERS} encoder and {detr.DEC_LAYERS} "
        f"decoder layers, {detr.NUM_OBJECT_QUERIES} queries{masks}",
        "parameters": f"{millions:.1f} million",
        "image size": resized if sizes.MIN_SIZE_TEST else "original",
    }


def _summarize_training(cfg: CfgNode, metrics: Sequence[dict], iteration: int) -> dict[str, str]:
    trained = max((line["iteration"] + 1 for line in metrics if "total_loss" in line), default=cfg.SOLVER.MAX_ITER)
    stopped = f" of {cfg.SOLVER.MAX_ITER} (stopped early)" if trained < cfg.SOLVER.MAX_ITER else ""
    epochs = max((line["epoch"] for line in metrics if "epoch" in line), default=0)
    device = torch.cuda.get_device_name() if cfg.MODEL.DEVICE.startswith("cuda") else "CPU"
    rate = cfg.SOLVER.BASE_LR
    average = {"weights": f"moving average, decay {cfg.SOLVER.EMA_DECAY:g}"} if cfg.SOLVER.EMA_DECAY else {}
    return {
        "started from": cfg.MODEL.DETR.FROZEN_WEIGHTS or cfg.MODEL.WEIGHTS or "random weights",
        "iterations": f"{trained}{stopped}, {cfg.SOLVER.IMS_PER_BATCH} images each, {epochs:.3g} epochs",
        "model shown": f"{'best' if iteration + 1 < trained else 'last'}, saved after iteration {iteration + 1}",
        "learning rate": f"{rate:.3g}, of the backbone {rate * cfg.SOLVER.BACKBONE_MULTIPLIER:.3g}",
        **average,
        "time": f"{_duration(metrics)} without evaluations, on {device}",
        "finished": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
    }


def _duration(metrics: Sequence[dict]) -> datetime.timedelta:
    """Add up the time of all iterations; each line has the seconds per iteration since the line before."""
    lines = [line for line in metrics if "time" in line]
    steps = [-1, *(line["iteration"] for line in lines)]
    seconds = sum((end - start) * line["time"] for (start, end), line in zip(pairwise(steps), lines, strict=True))
    return datetime.timedelta(seconds=round(seconds))
