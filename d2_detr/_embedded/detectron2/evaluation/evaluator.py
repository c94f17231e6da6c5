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

from detectron2.utils.comm import get_world_size

logger = logging.getLogger(__name__)


class DatasetEvaluator:
    """Computes figures from one pass over a dataset."""

    def reset(self) -> None:
        """Begin a new pass."""

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Look at a batch: what the model was given, and what it returned."""

    def evaluate(self) -> dict[str, Any] | None:
        """{task: {metric: value}}; only the main process needs to return it."""


def inference_on_dataset(model: Callable, data_loader: DataLoader, evaluator: DatasetEvaluator) -> dict[str, Any]:
    """Run the model over all batches, in eval mode if it has one, without gradients; return the evaluator's results."""
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
