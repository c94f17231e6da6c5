"""Data, model and training of a run in words and figures."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from d2_detr.data.validation.statistics import compute_stats

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog


def summary_of(
    cfg: CfgNode, model: nn.Module, weights: str | Path, metrics: Sequence[dict], iteration: int
) -> dict[str, dict[str, str]]:
    """Title -> name -> value. See write_report for the arguments."""
    summary = {"Data": _data(cfg, with_training=bool(metrics)), "Model": _model(cfg, model, weights)}
    if metrics:
        summary["Training"] = _training(cfg, metrics, iteration)
    return summary


def _data(cfg: CfgNode, *, with_training: bool) -> dict[str, str]:
    splits = {"training": cfg.DATASETS.TRAIN if with_training else (), "validation": cfg.DATASETS.TEST[:1]}
    rows = {"folder": cfg.DATASETS.CUSTOM} if cfg.DATASETS.CUSTOM else {}
    for title, names in splits.items():
        if names:
            found = compute_stats({name: DatasetCatalog.get(name) for name in names})
            rows[title] = (
                f"{found.title}: {found.num_pictures} pictures ({found.num_empty} without objects), "
                f"{found.boxes.total()} objects of {len(found.boxes)} {'class' if len(found.boxes) == 1 else 'classes'}"
            )
    return rows


def _model(cfg: CfgNode, model: nn.Module, weights: str | Path) -> dict[str, str]:
    detr = cfg.MODEL.DETR
    dilated = ", dilated (DC5)" if cfg.MODEL.RESNETS.RES5_DILATION == 2 else ""
    masks = ", mask head" if cfg.MODEL.MASK_ON else ""
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return {
        "checkpoint": str(weights),
        "network": f"ResNet-{cfg.MODEL.RESNETS.DEPTH}{dilated}, {detr.ENC_LAYERS} + {detr.DEC_LAYERS} layers, "
        f"{detr.NUM_OBJECT_QUERIES} queries{masks}",
        "parameters": f"{millions:.1f} million",
        "pictures": f"short side of {cfg.INPUT.MIN_SIZE_TEST} pixels, long side up to {cfg.INPUT.MAX_SIZE_TEST}"
        if cfg.INPUT.MIN_SIZE_TEST
        else "as large as they are",
    }


def _training(cfg: CfgNode, metrics: Sequence[dict], iteration: int) -> dict[str, str]:
    trained = max((line["iteration"] + 1 for line in metrics if "total_loss" in line), default=cfg.SOLVER.MAX_ITER)
    stopped = f" of {cfg.SOLVER.MAX_ITER}, ended early" if trained < cfg.SOLVER.MAX_ITER else ""
    epochs = max((line["epoch"] for line in metrics if "epoch" in line), default=0)
    device = torch.cuda.get_device_name() if cfg.MODEL.DEVICE.startswith("cuda") else "CPU"
    rate = cfg.SOLVER.BASE_LR
    average = {"weights": f"moving average, decay {cfg.SOLVER.EMA_DECAY:g}"} if cfg.SOLVER.EMA_DECAY else {}
    return {
        "started from": cfg.MODEL.DETR.FROZEN_WEIGHTS or cfg.MODEL.WEIGHTS or "nothing",
        "iterations": f"{trained}{stopped}, with {cfg.SOLVER.IMS_PER_BATCH} pictures each: {epochs:.3g} epochs",
        "shown here": f"the model of iteration {iteration + 1}, the {'best' if iteration + 1 < trained else 'last'}",
        "learning rate": f"{rate:.3g}, of the backbone {rate * cfg.SOLVER.BACKBONE_MULTIPLIER:.3g}",
        **average,
        "time": f"{_duration(metrics)} without evaluations, on {device}",
        "ended": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
    }


def _duration(metrics: Sequence[dict]) -> datetime.timedelta:
    """Each line has the seconds of an iteration for those since the line before."""
    lines = [line for line in metrics if "time" in line]
    steps = [-1, *(line["iteration"] for line in lines)]
    seconds = sum((end - start) * line["time"] for (start, end), line in zip(pairwise(steps), lines, strict=True))
    return datetime.timedelta(seconds=round(seconds))
