"""Hooks for timing, learning rate schedule, checkpoints, evaluation and writers."""

import logging
import math
import operator
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler as _LRScheduler

from detectron2._missing import missing_attribute
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from .train_loop import HookBase

__all__ = ["BestCheckpointer", "EvalHook", "IterationTimer", "LRScheduler", "PeriodicCheckpointer", "PeriodicWriter"]
__getattr__ = missing_attribute(__name__)

logger = logging.getLogger(__name__)


class IterationTimer(HookBase):
    """Store the `time` (s) of each iteration; log a summary after training.

    It should be the first hook, so that `after_step` of the others is not measured. Iterations before the
    `warmup_iter`-th are slow and ignored.
    """

    def __init__(self, warmup_iter: int = 3):
        self._warmup_iter = warmup_iter
        self._start_time, self._steps_time = time.perf_counter(), 0.0

    def before_train(self) -> None:
        self._start_time, self._steps_time = time.perf_counter(), 0.0

    def before_step(self) -> None:
        self._step_start = time.perf_counter()

    def after_step(self) -> None:
        now = time.perf_counter()
        if self.trainer.iter - self.trainer.start_iter + 1 < self._warmup_iter:
            self._start_time = now
        else:
            self._steps_time += now - self._step_start
            self.trainer.storage.put_scalars(time=now - self._step_start)

    def after_train(self) -> None:
        total, steps = time.perf_counter() - self._start_time, self._steps_time
        count = self.trainer.iter + 1 - self.trainer.start_iter - self._warmup_iter
        if count > 0 and steps > 0:
            duration = timedelta(seconds=int(steps))
            logger.info(f"Overall training speed: {count} iterations in {duration} ({steps / count:.4f} s / it)")
        duration, on_hooks = timedelta(seconds=int(total)), timedelta(seconds=int(total - steps))
        logger.info(f"Total training time: {duration} ({on_hooks} on hooks)")


class PeriodicWriter(HookBase):
    """Run writers every `period` iterations and after training, then close them."""

    def __init__(self, writers: Sequence[EventWriter], period: int = 20):
        self._writers, self._period = writers, period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        for writer in self._writers:
            writer.write()
            writer.close()


class PeriodicCheckpointer(_PeriodicCheckpointer, HookBase):
    """Save a checkpoint every `period` iterations, and `model_final` after the last."""

    def before_train(self) -> None:
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        self.step(self.trainer.iter)


class _EvaluationPeriod(HookBase):
    """Call `_act` every `_period` iterations (0: never) and after complete training."""

    _act: Callable[[], None]
    _period: int

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._act()

    def after_train(self) -> None:
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self._act()


class EvalHook(_EvaluationPeriod):
    """Evaluate every `eval_period` iterations and after training.

    The metrics, possibly nested, are stored. All processes must have this hook, because it synchronizes them.
    """

    def __init__(self, eval_period: int, eval_function: Callable[[], dict | None]):
        self._period, self._func = eval_period, eval_function

    def _act(self) -> None:
        self.trainer.storage.put_scalars(**flatten_results_dict(self._func() or {}), smoothing_hint=False)
        comm.synchronize()


class BestCheckpointer(_EvaluationPeriod):
    """Save `{file_prefix}.pth` when a metric reaches a new "max" or "min" (`mode`).

    It must be registered after the `EvalHook` of the same period.
    """

    def __init__(
        self, eval_period: int, checkpointer: Any, val_metric: str, mode: str = "max", file_prefix: str = "model_best"
    ):
        self._period, self._checkpointer, self._file_prefix = eval_period, checkpointer, file_prefix
        self._val_metric, self._better = val_metric, {"max": operator.gt, "min": operator.lt}[mode]
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    def _act(self) -> None:
        value, iteration = self.trainer.storage.latest().get(self._val_metric, (None, None))
        if value is None:
            logger.warning(f"No best checkpoint is saved: no evaluation has stored the metric {self._val_metric}")
            return
        logger.info(f"{self._val_metric}: {value}, best before: {self.best_metric} (iteration {self.best_iter})")
        if math.isfinite(value) and (self.best_metric is None or self._better(value, self.best_metric)):
            self.best_metric, self.best_iter = value, iteration
            self._checkpointer.save(self._file_prefix, iteration=iteration)


class LRScheduler(HookBase):
    """Store the learning rate of a representative group, then step the schedule."""

    def __init__(self, optimizer: Optimizer | None = None, scheduler: _LRScheduler | None = None):
        self._optimizer: Any = optimizer
        self._scheduler = scheduler

    @property
    def scheduler(self) -> _LRScheduler:
        return self._scheduler or self.trainer.scheduler

    def before_train(self) -> None:
        self._optimizer = self._optimizer or self.trainer.optimizer
        self._best_param_group_id = self.get_best_param_group_id(self._optimizer)

    @staticmethod
    def get_best_param_group_id(optimizer: Optimizer) -> int:
        """Return the index of the largest group or, if none has two, the commonest rate."""
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        if max(sizes) > 1:
            return sizes.index(max(sizes))
        rates = [group["lr"] for group in optimizer.param_groups]
        return rates.index(Counter(rates).most_common(1)[0][0])

    def after_step(self) -> None:
        lr = self._optimizer.param_groups[self._best_param_group_id]["lr"]
        self.trainer.storage.put_scalar("lr", lr, smoothing_hint=False)
        self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state_dict)
