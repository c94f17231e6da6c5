"""Gradient clipping and the learning-rate schedule that a config describes."""

import logging
from functools import partial
from typing import Any

from fvcore.common import param_scheduler as schedules
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detectron2._missing import missing
from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


def maybe_add_gradient_clipping(cfg: CfgNode, optimizer: Optimizer | type[Optimizer]) -> Optimizer | type[Optimizer]:
    """With SOLVER.CLIP_GRADIENTS.ENABLED, let an optimizer, or a class of them, clip the gradients before its step.

    Every parameter is clipped on its own, by "value" or by "norm" (CLIP_TYPE).
    """
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    if not clipping.ENABLED:
        return optimizer
    if clipping.CLIP_TYPE == "value":
        clip = partial(nn.utils.clip_grad_value_, clip_value=clipping.CLIP_VALUE)
    elif clipping.CLIP_TYPE == "norm":
        clip = partial(nn.utils.clip_grad_norm_, max_norm=clipping.CLIP_VALUE, norm_type=clipping.NORM_TYPE)
    else:
        raise ValueError(f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is 'value' or 'norm', got {clipping.CLIP_TYPE!r}")

    def clip_each(optimizer: Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            for param in group["params"]:
                clip(param)

    def init_and_clip(self: Optimizer, *args: Any, **kwargs: Any) -> None:
        optimizer.__init__(self, *args, **kwargs)
        self.register_step_pre_hook(clip_each)

    if isinstance(optimizer, type):
        return type(f"{optimizer.__name__}WithGradientClip", (optimizer,), {"__init__": init_and_clip})
    optimizer.register_step_pre_hook(clip_each)
    return optimizer


class LRMultiplier(LRScheduler):
    """Sets every learning rate to its initial value times `multiplier(iteration / max_iter)`, once per iteration."""

    def __init__(self, optimizer: Optimizer, multiplier: schedules.ParamScheduler, max_iter: int, last_iter: int = -1):
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict:
        """All that changes: the schedule itself is a pure function of the iteration."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float]:
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base_lr * factor for base_lr in self.base_lrs]


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """The schedule SOLVER.LR_SCHEDULER_NAME over MAX_ITER iterations, its first WARMUP_ITERS replaced by a warmup."""
    schedule, method = _main_schedule(cfg), cfg.SOLVER.WARMUP_METHOD
    share = min(cfg.SOLVER.WARMUP_ITERS / cfg.SOLVER.MAX_ITER, 1.0)
    first = cfg.SOLVER.WARMUP_FACTOR * schedule(0.0)
    if method not in ("linear", "constant"):
        raise ValueError(f"SOLVER.WARMUP_METHOD is 'linear' or 'constant', got {method!r}")
    warmup = schedules.LinearParamScheduler(first, schedule(share) if method == "linear" else first)
    whole = schedules.CompositeParamScheduler([warmup, schedule], [share, 1 - share], ["rescaled", "fixed"])
    return LRMultiplier(optimizer, whole, cfg.SOLVER.MAX_ITER)


def _main_schedule(cfg: CfgNode) -> schedules.ParamScheduler:
    max_iter = cfg.SOLVER.MAX_ITER
    match cfg.SOLVER.LR_SCHEDULER_NAME:
        case "WarmupMultiStepLR":
            steps = [step for step in cfg.SOLVER.STEPS if step <= max_iter]
            if len(steps) < len(cfg.SOLVER.STEPS):
                logger.warning(f"SOLVER.STEPS beyond MAX_ITER={max_iter} have no effect: {cfg.SOLVER.STEPS}")
            factors = [cfg.SOLVER.GAMMA**k for k in range(len(steps) + 1)]
            return schedules.MultiStepParamScheduler(factors, max_iter, steps)
        case "WarmupCosineLR":
            end = cfg.SOLVER.BASE_LR_END / cfg.SOLVER.BASE_LR
            assert 0 <= end <= 1, f"SOLVER.BASE_LR_END is {cfg.SOLVER.BASE_LR_END}, beyond BASE_LR or below 0"
            return schedules.CosineParamScheduler(1, end)
        case name:
            raise ValueError(missing(f"SOLVER.LR_SCHEDULER_NAME {name!r}"))
