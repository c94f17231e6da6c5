"""The optimizer and the learning-rate schedule that a config describes."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from fvcore.common import param_scheduler as schedules
from torch import nn

from detectron2.config import CfgNode

from .lr_scheduler import LRMultiplier, LRScheduler, WarmupParamScheduler

logger = logging.getLogger(__name__)

NORM_LAYERS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm),
)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """SGD over the trainable parameters of `model`."""
    params = get_default_optimizer_params(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
        weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
    )
    sgd = torch.optim.SGD(
        params,
        lr=cfg.SOLVER.BASE_LR,
        momentum=cfg.SOLVER.MOMENTUM,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        nesterov=cfg.SOLVER.NESTEROV,
        foreach=True,
    )
    return maybe_add_gradient_clipping(cfg, sgd)


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups of `model`: each trainable parameter once, those with equal settings together.

    What is None is left to the optimizer. `lr_factor_func` maps a parameter's full name to a factor on `base_lr`;
    `overrides` maps the last part of a name (e.g. "bias") to settings that win over all others.
    """
    scales_bias_lr = bias_lr_factor is not None and bias_lr_factor != 1.0
    if base_lr is None and (scales_bias_lr or lr_factor_func is not None):
        raise ValueError("bias_lr_factor and lr_factor_func scale base_lr, which is not given")

    bias = {} if weight_decay_bias is None else {"weight_decay": weight_decay_bias}
    if scales_bias_lr:
        bias = {"lr": base_lr * bias_lr_factor, **bias}
    overrides = overrides or {}
    if bias and "bias" in overrides:
        raise ValueError("'bias' is set twice: in overrides and through bias_lr_factor or weight_decay_bias")
    overrides = {"bias": bias, **overrides}

    defaults = {k: v for k, v in (("lr", base_lr), ("weight_decay", weight_decay)) if v is not None}
    groups: dict[tuple, list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, param in module.named_parameters(recurse=False):
            if not param.requires_grad or param in seen:
                continue
            seen.add(param)
            settings = dict(defaults)
            if weight_decay_norm is not None and isinstance(module, NORM_LAYERS):
                settings["weight_decay"] = weight_decay_norm
            if lr_factor_func is not None:
                settings["lr"] *= lr_factor_func(f"{module_name}.{name}")
            settings |= overrides.get(name, {})
            groups.setdefault(tuple(settings.items()), []).append(param)
    return [{**dict(settings), "params": params} for settings, params in groups.items()]


def maybe_add_gradient_clipping(
    cfg: CfgNode, optimizer: torch.optim.Optimizer | type[torch.optim.Optimizer]
) -> torch.optim.Optimizer | type[torch.optim.Optimizer]:
    """With SOLVER.CLIP_GRADIENTS.ENABLED, makes an optimizer, or a class of them, clip each gradient before its step.

    Every parameter is clipped on its own, by "value" or by "norm" (CLIP_TYPE).
    """
    if not cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        return optimizer
    kind, limit = cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE
    if kind == "value":
        clip = partial(nn.utils.clip_grad_value_, clip_value=limit)
    elif kind == "norm":
        clip = partial(nn.utils.clip_grad_norm_, max_norm=limit, norm_type=cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE)
    else:
        raise ValueError(f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is 'value' or 'norm', got {kind!r}")
    base = optimizer if isinstance(optimizer, type) else type(optimizer)

    def step(self, closure=None):
        for group in self.param_groups:
            for param in group["params"]:
                clip(param)
        return base.step(self, closure)

    clipping = type(f"{base.__name__}WithGradientClip", (base,), {"step": step})
    if isinstance(optimizer, type):
        return clipping
    optimizer.__class__ = clipping
    return optimizer


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """The schedule SOLVER.LR_SCHEDULER_NAME over MAX_ITER iterations, after a warmup of WARMUP_ITERS."""
    schedule = WarmupParamScheduler(
        _main_schedule(cfg),
        warmup_factor=cfg.SOLVER.WARMUP_FACTOR,
        warmup_length=min(cfg.SOLVER.WARMUP_ITERS / cfg.SOLVER.MAX_ITER, 1.0),
        warmup_method=cfg.SOLVER.WARMUP_METHOD,
        rescale_interval=cfg.SOLVER.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, schedule, cfg.SOLVER.MAX_ITER)


def _main_schedule(cfg: CfgNode) -> schedules.ParamScheduler:
    """What the warmup leads to."""
    gamma, max_iter = cfg.SOLVER.GAMMA, cfg.SOLVER.MAX_ITER
    match cfg.SOLVER.LR_SCHEDULER_NAME:
        case "WarmupMultiStepLR":
            steps = [step for step in cfg.SOLVER.STEPS if step <= max_iter]
            if len(steps) < len(cfg.SOLVER.STEPS):
                logger.warning(f"SOLVER.STEPS beyond MAX_ITER={max_iter} have no effect: {cfg.SOLVER.STEPS}")
            return schedules.MultiStepParamScheduler([gamma**k for k in range(len(steps) + 1)], max_iter, steps)
        case "WarmupCosineLR":
            end = cfg.SOLVER.BASE_LR_END / cfg.SOLVER.BASE_LR
            assert 0 <= end <= 1, f"SOLVER.BASE_LR_END must lie in [0, BASE_LR], got {cfg.SOLVER.BASE_LR_END}"
            return schedules.CosineParamScheduler(1, end)
        case "WarmupStepWithFixedGammaLR":
            return schedules.StepWithFixedGammaParamScheduler(1.0, cfg.SOLVER.NUM_DECAYS, gamma, max_iter)
        case name:
            raise ValueError(f"unknown SOLVER.LR_SCHEDULER_NAME: {name!r}")
