"""Run a model on a dataset and compute metrics of its outputs."""

import datetime
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from detectron2.utils.comm import get_world_size, is_main_process

logger = logging.getLogger(__name__)


class DatasetEvaluator:
    """Base class of evaluators, which compute metrics in one pass over a dataset."""

    def reset(self) -> None:
        """Prepare for a new pass."""

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Process the inputs and outputs of the model for one batch."""

    def evaluate(self) -> dict[str, Any] | None:
        """Return {task: {metric: value}}, at least in the main process."""


class DatasetEvaluators(DatasetEvaluator):
    """Run several evaluators in one pass and merge their results."""

    def __init__(self, evaluators: list[DatasetEvaluator]):
        self._evaluators = evaluators

    def reset(self) -> None:
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, Any]:
        results = [item for evaluator in self._evaluators for item in (evaluator.evaluate() or {}).items()]
        assert len(dict(results)) == len(results), f"Evaluators return the same task: {[task for task, _ in results]}"
        return dict(results) if is_main_process() else {}


def inference_on_dataset(model: Callable, data_loader: DataLoader, evaluator: DatasetEvaluator | list) -> dict:
    """Run a model in eval mode on all batches; return the evaluator's results."""
    evaluator = DatasetEvaluators(evaluator) if isinstance(evaluator, list) else evaluator
    total = len(data_loader)
    logger.info(f"Running the model on {total} batches")
    evaluator.reset()
    start = logged = time.perf_counter()
    with inference_context(model) if isinstance(model, nn.Module) else nullcontext(), torch.no_grad():
        for done, inputs in enumerate(data_loader, start=1):
            evaluator.process(inputs, model(inputs))
            now = time.perf_counter()
            if now - logged > 5:
                logged, seconds_per_iter = now, (now - start) / done
                eta = datetime.timedelta(seconds=int(seconds_per_iter * (total - done)))
                logger.info(f"Inference done {done}/{total}. {seconds_per_iter:.4f} s/iter. ETA={eta}")
    seconds = time.perf_counter() - start
    duration, rate = datetime.timedelta(seconds=int(seconds)), seconds / max(total, 1)
    logger.info(f"Total inference time: {duration} ({rate:.6f} s / iter per device, on {get_world_size()} devices)")
    return evaluator.evaluate() or {}


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Set a model to eval mode, and back to its former mode at the end."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
