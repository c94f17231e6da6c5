"""An exponential moving average of the weights, which is evaluated and saved in place of the last ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from d2_detr.utils.errors import InputError

from detectron2.engine import HookBase


class Ema(HookBase):
    """Averages the weights and buffers of a model after every step.

    In the first steps the decay is smaller, (1 + n) / (10 + n) behind n steps, or the beginning would stay for long.
    A checkpoint has the averaged weights as its model; those that are trained lie beside them, for a resume.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise InputError(f"SOLVER.EMA_DECAY {decay}: expected a number in (0, 1) such as 0.999, or 0 for none")
        self._model = model
        self._averaged = AveragedModel(model, multi_avg_fn=_average(decay), use_buffers=True)

    def after_step(self) -> None:
        self._averaged.update_parameters(self._model)

    def weights(self) -> dict[str, Tensor]:
        """The averaged state dict."""
        return self._averaged.module.state_dict()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights for a while."""
        trained = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        self._model.load_state_dict(self.weights())
        try:
            yield
        finally:
            self._model.load_state_dict(trained)

    def state_dict(self) -> dict[str, Any]:
        return {"trained": self._model.state_dict(), "steps": int(self._averaged.n_averaged)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of a checkpoint whose model, the averaged one, has been loaded."""
        self._averaged.module.load_state_dict(self._model.state_dict())
        self._averaged.n_averaged.fill_(state_dict["steps"])
        self._model.load_state_dict(state_dict["trained"])


def _average(decay: float):
    @torch.no_grad()
    def average(averaged: tuple[Tensor, ...], current: tuple[Tensor, ...], steps: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + int(steps)) / (10 + int(steps)))
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new, weight)
            else:  # the counters of batch norm
                old.copy_(new)

    return average
