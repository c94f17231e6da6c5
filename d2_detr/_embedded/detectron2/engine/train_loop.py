"""The training loop: trainers, and the hooks that they call."""

import logging
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage

__all__ = ["AMPTrainer", "HookBase", "SimpleTrainer", "TrainerBase"]

logger = logging.getLogger(__name__)


class HookBase:
    """Base class of hooks, which a trainer calls around training and iterations.

    `after_step` is the place for time-consuming work; `after_backward` precedes the optimizer step; `after_train` is
    called even if training fails. A hook that returns a `state_dict` also defines `load_state_dict`.
    """

    trainer: Any = None  # the TrainerBase, set on registration

    def before_train(self) -> None: ...
    def before_step(self) -> None: ...
    def after_backward(self) -> None: ...
    def after_step(self) -> None: ...
    def after_train(self) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}


class TrainerBase:
    """Run iterations `start_iter` to `max_iter - 1`, with hooks and a `storage`."""

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter = self.start_iter = 0

    def register_hooks(self, hooks: Iterable[HookBase | None]) -> None:
        """Append hooks, which are called in this order; None is skipped."""
        for hook in hooks:
            if hook is not None:
                hook.trainer = weakref.proxy(self)  # the trainer owns its hooks, without a reference cycle
                self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> None:
        self.iter, self.start_iter, self.max_iter = start_iter, start_iter, max_iter
        logger.info(f"Starting training from iteration {start_iter}")
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                for iteration in range(start_iter, max_iter):
                    self.iter = iteration
                    self.before_step()
                    self.run_step()
                    self.after_step()
                self.iter += 1  # tells after_train() that no iteration has failed
            except Exception:
                logger.exception(f"Training failed at iteration {self.iter}")
                raise
            finally:
                self.after_train()

    def before_train(self) -> None:
        for hook in self._hooks:
            hook.before_train()

    def before_step(self) -> None:
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def run_step(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} must define run_step()")

    def after_backward(self) -> None:
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self) -> None:
        for hook in self._hooks:
            hook.after_step()

    def after_train(self) -> None:
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.after_train()

    def state_dict(self) -> dict[str, Any]:
        """Return the last iteration and, by class name, the states of the hooks."""
        hooks: dict[str, dict] = {}
        for hook in self._hooks:
            if state := hook.state_dict():
                hooks.setdefault(type(hook).__qualname__, state)
        return {"iteration": self.iter, "hooks": hooks} if hooks else {"iteration": self.iter}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.iter = state_dict["iteration"]
        for name, state in state_dict.get("hooks", {}).items():
            hook: Any = next((hook for hook in self._hooks if type(hook).__qualname__ == name), None)
            if hook is None:
                logger.warning(f"The checkpoint has the state of a hook that is not registered: {name}")
            else:
                hook.load_state_dict(state)


class SimpleTrainer(TrainerBase):
    """Minimize the loss, or the sum of the dict of losses, that a model returns.

    The losses of every `gather_metric_period`-th iteration are stored.
    """

    def __init__(
        self, model: nn.Module, data_loader: Iterable, optimizer: torch.optim.Optimizer, gather_metric_period: int = 1
    ):
        super().__init__()
        self.model, self.data_loader, self.optimizer = model.train(), data_loader, optimizer
        self.gather_metric_period = gather_metric_period

    def run_step(self) -> None:
        assert self.model.training, f"[{type(self).__name__}] the model is in eval mode; call model.train()"
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        loss_dict = self._forward(data)
        self.optimizer.zero_grad()
        self._backward(sum(loss_dict.values()))  # type: ignore[arg-type]
        self.after_backward()
        self._write_metrics(loss_dict, data_time)
        self._update()

    @cached_property
    def _data_loader_iter(self) -> Iterator:
        return iter(self.data_loader)

    def reset_data_loader(self, data_loader_builder: Callable[[], Iterable]) -> None:
        """Release the data loader, then continue with a new one."""
        self.__dict__.pop("_data_loader_iter", None)
        del self.data_loader
        self.data_loader = data_loader_builder()

    def _forward(self, data: Any) -> dict[str, torch.Tensor]:
        losses = self.model(data)
        return {"total_loss": losses} if isinstance(losses, torch.Tensor) else losses

    def _backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def _update(self) -> None:
        self.optimizer.step()

    def _write_metrics(self, loss_dict: Mapping[str, torch.Tensor], data_time: float, prefix: str = "") -> None:
        """Store the losses, averaged over the processes, and the longest `data_time` (s)."""
        if (self.iter + 1) % self.gather_metric_period:
            return
        storage = get_event_storage()
        storage.put_scalar("rank_data_time", data_time, cur_iter=self.iter)
        own_losses = {name: loss.item() for name, loss in loss_dict.items()}
        per_process = comm.gather({**own_losses, "data_time": data_time})
        if not comm.is_main_process():
            return
        slowest = max(metrics.pop("data_time") for metrics in per_process)
        storage.put_scalar("data_time", slowest, cur_iter=self.iter)
        losses = {name: np.mean([metrics[name] for metrics in per_process]) for name in per_process[0]}
        total = sum(losses.values())
        if not np.isfinite(total):
            raise FloatingPointError(f"Loss is not finite at iteration {self.iter}: {losses}")
        storage.put_scalar(f"{prefix}total_loss", total, cur_iter=self.iter)
        if len(losses) > 1:
            storage.put_scalars(cur_iter=self.iter, **losses)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])


class AMPTrainer(SimpleTrainer):
    """Train with automatic mixed precision on CUDA (float16 with gradient scaling)."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.grad_scaler = torch.amp.GradScaler("cuda")

    def run_step(self) -> None:
        assert torch.cuda.is_available(), "[AMPTrainer] CUDA is not available; set SOLVER.AMP.ENABLED False"
        super().run_step()

    def _forward(self, data: Any) -> dict[str, torch.Tensor]:
        with torch.autocast("cuda", dtype=torch.float16):
            return super()._forward(data)

    def _backward(self, loss: torch.Tensor) -> None:
        self.grad_scaler.scale(loss).backward()

    def _update(self) -> None:
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
