"""Run a model over a data loader and let evaluators look at what goes in and comes out."""

import datetime
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, MutableSequence, Sized
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from detectron2.utils.comm import get_world_size, is_main_process
from detectron2.utils.logger import log_every_n_seconds

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
    """Several evaluators, of different tasks, as one."""

    def __init__(self, evaluators: list[DatasetEvaluator]):
        self._evaluators = evaluators

    def reset(self) -> None:
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, Any]:
        results = {}
        for result in [evaluator.evaluate() for evaluator in self._evaluators]:
            if is_main_process() and result:
                assert not results.keys() & result, f"Two evaluators have results for {results.keys() & result}"
                results |= result
        return results


def inference_on_dataset(
    model: Callable[[Any], Any],
    data_loader: Sized,
    evaluator: DatasetEvaluator | list[DatasetEvaluator] | None,
) -> dict[str, Any]:
    """Run the model over all batches, in eval mode and without gradients, and return the evaluator's results.

    The seconds per batch are logged, a warmup of 5 batches not counted.
    """
    if evaluator is None or isinstance(evaluator, MutableSequence):
        evaluator = DatasetEvaluators(evaluator or [])
    total, warmup = len(data_loader), min(5, len(data_loader) - 1)
    logger.info(f"Running the model on {total} batches")
    evaluator.reset()
    seconds = Counter()
    with inference_context(model) if isinstance(model, nn.Module) else nullcontext(), torch.no_grad():
        begin = time.perf_counter()
        for i, inputs in enumerate(data_loader):
            if i == warmup:
                seconds.clear()
            loaded = time.perf_counter()
            outputs = model(inputs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            inferred = time.perf_counter()
            evaluator.process(inputs, outputs)
            end = time.perf_counter()
            seconds.update({"Dataloading": loaded - begin, "Inference": inferred - loaded, "Eval": end - inferred})
            begin = end
            if i >= warmup:
                _log_progress(seconds, i + 1 - warmup, i + 1, total)
    for what, spent in ("", seconds.total()), (" pure compute", seconds["Inference"]):
        rate = f"{spent / (total - warmup):.6f} s / iter per device, on {get_world_size()} devices"
        logger.info(f"Total inference{what} time: {datetime.timedelta(seconds=int(spent))} ({rate})")
    results = evaluator.evaluate()
    return {} if results is None else results


def _log_progress(seconds: Counter[str], counted: int, done: int, total: int) -> None:
    stages = [*seconds.items(), ("Total", seconds.total())]
    rates = " ".join(f"{stage}: {spent / counted:.4f} s/iter." for stage, spent in stages)
    eta = datetime.timedelta(seconds=int(seconds.total() / counted * (total - done)))
    log_every_n_seconds(logging.INFO, f"Inference done {done}/{total}. {rates} ETA={eta}", n=5)


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; afterwards, errors included, in the mode that it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
