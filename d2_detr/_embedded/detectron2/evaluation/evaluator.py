"""Run a model over a data loader and let an evaluator look at what goes in and comes out."""

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
    """Computes figures from one pass over a dataset."""

    def reset(self) -> None:
        """Begin a new pass."""

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Look at a batch: what the model was given, and what it returned."""

    def evaluate(self) -> dict[str, Any] | None:
        """{task: {metric: value}}; only the main process needs to return it."""


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators over one pass; their results, each of a task of its own, are put together."""

    def __init__(self, evaluators: list[DatasetEvaluator]):
        self._evaluators = evaluators

    def reset(self) -> None:
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, Any]:
        found = [item for evaluator in self._evaluators for item in (evaluator.evaluate() or {}).items()]
        assert len(dict(found)) == len(found), f"Two evaluators have the same of {[task for task, _ in found]}"
        return dict(found) if is_main_process() else {}


def inference_on_dataset(model: Callable, data_loader: DataLoader, evaluator: DatasetEvaluator | list) -> dict:
    """Run the model over all batches, in eval mode if it has one, without gradients; return the evaluator's results."""
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
                logged, rate = now, (now - start) / done
                eta = datetime.timedelta(seconds=int(rate * (total - done)))
                logger.info(f"Inference done {done}/{total}. {rate:.4f} s/iter. ETA={eta}")
    seconds = time.perf_counter() - start
    rate = f"{seconds / max(total, 1):.6f} s / iter per device, on {get_world_size()} devices"
    logger.info(f"Total inference time: {datetime.timedelta(seconds=int(seconds))} ({rate})")
    return evaluator.evaluate() or {}


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; afterwards, errors included, in the mode that it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
