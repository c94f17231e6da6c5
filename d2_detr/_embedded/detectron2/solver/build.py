"""Build gradient clipping and the learning rate schedule from a config."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from fvcore.common import param_scheduler as schedules
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detectron2._missing import missing, missing_attribute
from detectron2.config import CfgNode

__getattr__ = missing_attribute(__name__)

logger = logging.getLogger(__name__)
OptimizerOrClass = TypeVar("OptimizerOrClass", bound=Optimizer | type[Optimizer])


def maybe_add_gradient_clipping(cfg: CfgNode, optimizer: OptimizerOrClass) -> OptimizerOrClass:
    """Let an optimizer, or a class, clip gradients as SOLVER.CLIP_GRADIENTS says.

    Each parameter is clipped separately, by "value" or by "norm" (CLIP_TYPE).
    """
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    clip: Callable[..., Any]
    if not clipping.ENABLED:
        return optimizer
    if clipping.CLIP_TYPE == "value":
        clip = partial(nn.utils.clip_grad_value_, clip_value=clipping.CLIP_VALUE)
    elif clipping.CLIP_TYPE == "norm":
        clip = partial(nn.utils.clip_grad_norm_, max_norm=clipping.CLIP_VALUE, norm_type=clipping.NORM_TYPE)
    else:
        raise ValueError(f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE: expected 'value' or 'norm', got {clipping.CLIP_TYPE!r}")

    def clip_each(optimizer: Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            for param in group["params"]:
                clip(param)

    def init_and_clip(self: Optimizer, *args: Any, **kwargs: Any) -> None:
        super(with_clipping, self).__init__(*args, **kwargs)
        self.register_step_pre_hook(clip_each)

    if not isinstance(optimizer, type):
        optimizer.register_step_pre_hook(clip_each)
        return optimizer
    with_clipping: Any = type(f"{optimizer.__name__}WithGradientClip", (optimizer,), {"__init__": init_and_clip})
    return with_clipping


class LRMultiplier(LRScheduler):
    """Multiply the initial learning rates by `multiplier(iteration / max_iter)`."""

    def __init__(self, optimizer: Optimizer, multiplier: schedules.ParamScheduler, max_iter: int, last_iter: int = -1):
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict[str, Any]:
        """Return what defines the current rates, given the config."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float | Tensor]:
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base_lr * factor for base_lr in self.base_lrs]


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """Build SOLVER.LR_SCHEDULER_NAME, with its first WARMUP_ITERS as a warmup."""
    schedule, method = _main_schedule(cfg), cfg.SOLVER.WARMUP_METHOD
    length = min(cfg.SOLVER.WARMUP_ITERS / cfg.SOLVER.MAX_ITER, 1.0)
    start = cfg.SOLVER.WARMUP_FACTOR * schedule(0.0)
    if method not in ("linear", "constant"):
        raise ValueError(f"SOLVER.WARMUP_METHOD: expected 'linear' or 'constant', got {method!r}")
    warmup = schedules.LinearParamScheduler(start, schedule(length) if method == "linear" else start)
    whole = schedules.CompositeParamScheduler([warmup, schedule], [length, 1 - length], ["rescaled", "fixed"])
    return LRMultiplier(optimizer, whole, cfg.SOLVER.MAX_ITER)


def _main_schedule(cfg: CfgNode) -> schedules.ParamScheduler:
    max_iter = cfg.SOLVER.MAX_ITER
    match cfg.SOLVER.LR_SCHEDULER_NAME:
        case "WarmupMultiStepLR":
            steps = [step for step in cfg.SOLVER.STEPS if step <= max_iter]
            if len(steps) < len(cfg.SOLVER.STEPS):
                logger.warning(f"SOLVER.STEPS {cfg.SOLVER.STEPS}: steps beyond MAX_ITER {max_iter} have no effect")
            factors = [cfg.SOLVER.GAMMA**k for k in range(len(steps) + 1)]
            return schedules.MultiStepParamScheduler(factors, max_iter, steps)
        case "WarmupCosineLR":
            end = cfg.SOLVER.BASE_LR_END / cfg.SOLVER.BASE_LR
            assert 0 <= end <= 1, f"SOLVER.BASE_LR_END: expected 0 to BASE_LR, got {cfg.SOLVER.BASE_LR_END}"
            return schedules.CosineParamScheduler(1, end)
        case name:
            raise ValueError(missing(f"SOLVER.LR_SCHEDULER_NAME {name!r}"))
