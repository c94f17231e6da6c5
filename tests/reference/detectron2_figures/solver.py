"""Learning rates at every iteration, and gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.reference.detectron2_figures.common import refusal

from detectron2.config import get_cfg
from detectron2.engine import hooks
from detectron2.solver import build_lr_scheduler
from detectron2.solver.build import maybe_add_gradient_clipping as clipped

STEPS = {"LR_SCHEDULER_NAME": "WarmupMultiStepLR", "STEPS": (6, 8), "GAMMA": 0.1}
COSINE = {"LR_SCHEDULER_NAME": "WarmupCosineLR"}
SCHEDULES = {
    **{f"steps, {key} {value}": STEPS | {key: value} for key, value in (
        ("WARMUP_METHOD", "linear"), ("WARMUP_METHOD", "constant"), ("WARMUP_ITERS", 0), ("WARMUP_ITERS", 1),
        ("WARMUP_ITERS", 7), ("WARMUP_ITERS", 1000), ("WARMUP_FACTOR", 0.0), ("WARMUP_FACTOR", 1.0), ("STEPS", ()),
        ("STEPS", (3, 11)), ("STEPS", (2, 80)), ("STEPS", (1, 5, 9)), ("GAMMA", 0.5), ("MAX_ITER", 1),
    )},
    **{f"cosine, {key} {value}": COSINE | {key: value} for key, value in (
        ("WARMUP_METHOD", "linear"), ("WARMUP_METHOD", "constant"), ("WARMUP_ITERS", 0), ("BASE_LR_END", 0.5),
        ("BASE_LR_END", 1.0), ("WARMUP_ITERS", 1000),
    )},
    "defaults": {"WARMUP_FACTOR": 1 / 1000, "WARMUP_ITERS": 1000, "MAX_ITER": 40000, "STEPS": (30000,)},
}  # fmt: skip
WRONG_SCHEDULES = {
    "no such schedule": {"LR_SCHEDULER_NAME": "Nonsense"}, "no such warmup": {"WARMUP_METHOD": "nonsense"},
    "steps that fall": STEPS | {"STEPS": (8, 6)}, "a step at the end": STEPS | {"STEPS": (3, 12)},
    "an end above the start": COSINE | {"BASE_LR_END": 2.0},
}  # fmt: skip


def solver_config(**solver: Any) -> Any:
    cfg = get_cfg()
    for key, value in {"MAX_ITER": 12, "BASE_LR": 1.0, "WARMUP_ITERS": 4, "WARMUP_FACTOR": 0.2, **solver}.items():
        cfg.SOLVER[key] = value
    return cfg


def optimizer_of(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates], lr=1.0)


def rates_at_each_iteration(cfg: Any) -> dict:
    """Return the rates of two groups, up to iteration 20 and around iteration 1000."""
    optimizer = optimizer_of(1.0, 0.25)
    scheduler, rates = build_lr_scheduler(cfg, optimizer), []
    for iteration in range(min(cfg.SOLVER.MAX_ITER, 1010)):
        if iteration < 20 or iteration > 990:
            rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return {"rates": rates, "state": scheduler.state_dict()}


def learning_rates() -> dict:
    figures = {name: rates_at_each_iteration(solver_config(**solver)) for name, solver in SCHEDULES.items()}
    resumed = build_lr_scheduler(solver_config(**STEPS), optimizer_of(9.0))
    resumed.load_state_dict({"base_lrs": [1.0], "last_epoch": 7})
    refused = {
        name: refusal(build_lr_scheduler, solver_config(**wrong), optimizer_of(1.0))
        for name, wrong in WRONG_SCHEDULES.items()
    }
    group_sizes = ([1, 3, 3], [1, 1, 1, 1], [2])
    best = [hooks.LRScheduler.get_best_param_group_id(optimizer_of_sizes(sizes)) for sizes in group_sizes]
    return figures | {"resumed": resumed.get_lr(), "refused": refused, "group that is shown": best}


def optimizer_of_sizes(sizes: list[int]) -> torch.optim.Optimizer:
    groups = [
        {"params": [nn.Parameter(torch.zeros(1)) for _ in range(size)], "lr": 1.0 / (1 + i % 2 + i // 3)}
        for i, size in enumerate(sizes)
    ]
    return torch.optim.SGD(groups)


def clipped_steps() -> dict:
    """Take two steps of SGD on large gradients with each kind of clipping."""
    kinds = {
        "off": {"ENABLED": False}, "by value": {"CLIP_TYPE": "value"}, "by norm": {"CLIP_TYPE": "norm"},
        "by largest": {"CLIP_TYPE": "norm", "NORM_TYPE": math.inf}, "wide": {"CLIP_TYPE": "norm", "CLIP_VALUE": 4.0},
    }  # fmt: skip
    figures = {}
    for name, kind in kinds.items():
        cfg = get_cfg()
        for key, value in {"ENABLED": True, **kind}.items():
            cfg.SOLVER.CLIP_GRADIENTS[key] = value
        figures[name] = after_two_steps(lambda *args, cfg=cfg, **kwargs: clipped(cfg, torch.optim.SGD(*args, **kwargs)))
        figures[f"{name}, a class"] = after_two_steps(clipped(cfg, torch.optim.SGD))
    return figures


def after_two_steps(optimizer_type: Callable) -> list:
    params = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    optimizer = optimizer_type(params, lr=1.0, momentum=0.5)
    for _ in range(2):
        params[0].grad, params[1].grad = torch.tensor([3.0, -4.0]), torch.tensor([0.5])
        optimizer.step()
    return [param.detach() for param in params]


GROUPS = (learning_rates, clipped_steps)
