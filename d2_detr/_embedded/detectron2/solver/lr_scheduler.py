"""Learning rates as fvcore schedules of relative training progress `where` in [0, 1)."""

import torch
from fvcore.common import param_scheduler as schedules
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["LRMultiplier", "LRScheduler", "WarmupParamScheduler"]


class WarmupParamScheduler(schedules.CompositeParamScheduler):
    """`scheduler` with its first `warmup_length` (a share of the training, in [0, 1]) replaced by a warmup.

    The warmup starts at `warmup_factor` times the schedule's first value and is "linear" or "constant". Afterwards the
    schedule goes on as if it had run all along, or, with `rescale_interval`, starts squeezed into the remaining share.
    """

    def __init__(
        self,
        scheduler: schedules.ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ):
        first = warmup_factor * scheduler(0.0)
        if warmup_method == "linear":
            warmup = schedules.LinearParamScheduler(first, scheduler(0.0 if rescale_interval else warmup_length))
        elif warmup_method == "constant":
            warmup = schedules.ConstantParamScheduler(first)
        else:
            raise ValueError(f"SOLVER.WARMUP_METHOD is 'linear' or 'constant', got {warmup_method!r}")
        super().__init__(
            schedulers=[warmup, scheduler],
            lengths=[warmup_length, 1 - warmup_length],
            interval_scaling=["rescaled", "rescaled" if rescale_interval else "fixed"],
        )


class LRMultiplier(LRScheduler):
    """Sets every learning rate to its initial value times `multiplier(iteration / max_iter)`, once per iteration."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, multiplier: schedules.ParamScheduler, max_iter: int, last_iter: int = -1
    ):
        if not isinstance(multiplier, schedules.ParamScheduler):
            raise ValueError(f"multiplier must be an fvcore ParamScheduler, got {type(multiplier).__name__}")
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict:
        """All that changes: the schedule itself is a pure function of the iteration."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float]:
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base_lr * factor for base_lr in self.base_lrs]
