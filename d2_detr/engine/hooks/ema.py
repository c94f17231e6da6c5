"""An exponential moving average of the weights, which is evaluated and saved in place of the latest ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from d2_detr.utils.errors import InputError

from detectron2.engine import HookBase


class Ema(HookBase):
    """Averages the parameters and buffers of a model after every step.

    After n steps the decay is at most (1 + n) / (10 + n), so that the initial weights are soon forgotten. The first
    step copies them. A checkpoint has the averaged weights as its model; the trained ones are beside them, to resume.
    """

    def __init__(self, model: nn.Module, decay: float):
        """Copy the model.

        Raises:
            InputError: the decay is not in (0, 1).
        """
        if not 0 < decay < 1:
            raise InputError(f"SOLVER.EMA_DECAY {decay}: expected a number in (0, 1) such as 0.999, or 0 for none")
        self._model = model
        self._averaged = deepcopy(model).requires_grad_(False)
        self._decay = decay
        self._num_steps = 0  # not a tensor: reading one would wait for the device in every step

    @torch.no_grad()
    def after_step(self) -> None:
        """Update the average."""
        decay = min(self._decay, (1 + self._num_steps) / (10 + self._num_steps)) if self._num_steps else 0.0
        averaged, current = (list(m.state_dict().values()) for m in (self._averaged, self._model))
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - decay)
            else:  # the counters of batch norm
                old.copy_(new)
        self._num_steps += 1

    def weights(self) -> dict[str, Tensor]:
        """Return the averaged state dict."""
        return self._averaged.state_dict()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights for the duration of the block."""
        trained = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        self._model.load_state_dict(self.weights())
        try:
            yield
        finally:
            self._model.load_state_dict(trained)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores beside the averaged model."""
        return {"trained": self._model.state_dict(), "steps": self._num_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint whose model, the averaged one, has been loaded."""
        self._averaged.load_state_dict(self._model.state_dict())
        self._num_steps = state_dict["steps"]
        self._model.load_state_dict(state_dict["trained"])
