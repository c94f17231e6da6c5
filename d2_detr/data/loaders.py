"""Loaders of training and test images.

A worker process can pass on an exception only as the text of its traceback. An error of the mapper is therefore part of
its result, and handled by the process that uses the batch.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from pickle import UnpicklingError
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.data.seeding import seeded
from d2_detr.data.training_order import Sample, TrainingOrder, build_order
from d2_detr.structures.dataset import Dataset
from d2_detr.structures.records import Record
from d2_detr.utils.errors import InputError
from d2_detr.utils.processes import num_cores

from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, build_detection_test_loader

logger = logging.getLogger(__name__)
Mapper = Callable[[Record], Record]

ERRORS = "errors"  # key of a record: [(file name, exception), ...] of the images that it replaces
MAX_TRIES = 10  # images that may replace each other before a loader gives up
CHECK = 2  # seconds after which a loader that waits looks whether its workers are alive
WORKER_GRACE = 10  # seconds that a worker has to end by itself


def build_train_loader(cfg: CfgNode, records: Sequence[Record], mapper: Mapper, seed: int) -> TrainLoader:
    """Build an endless loader of training batches.

    Args:
        records: the images of an epoch, in Detectron2's dataset format.
        seed: of the order and of the augmentations.

    Raises:
        InputError: see build_order.
    """
    samples = _Samples(DatasetFromList(records) if isinstance(records, list) else records, mapper)
    return TrainLoader(
        samples,
        build_order(cfg, records, seed),
        num_workers=_num_workers(cfg),
        timeout=cfg.DATALOADER.TIMEOUT,
        max_bad_images=math.ceil(cfg.DATALOADER.MAX_BAD_IMAGES * len(records)),
    )


def build_test_loader(cfg: CfgNode, dataset: Dataset) -> Any:  # a TestLoader, with the interface of a DataLoader
    """Build the loader of a dataset, with the ground truth that the losses need."""
    mapper = _ErrorReturningMapper(DetrDatasetMapper(cfg, is_train=False, with_instances=True))
    loader = build_detection_test_loader(dataset.records, mapper=mapper, num_workers=_num_workers(cfg))
    if loader.num_workers:
        loader.multiprocessing_context = _context()
    return TestLoader(loader, max_bad_images=math.ceil(cfg.DATALOADER.MAX_BAD_IMAGES * len(dataset.records)))


class TrainLoader:
    """Endless batches in the order of a TrainingOrder, whatever the number of workers.

    Its state is that of the order after the last batch that was used, not after those that workers have prepared.
    Iterating raises InputError if more than `max_bad_images` cannot be used, or if a worker is killed or stalls. Until
    then, the next image in the dataset replaces one that cannot be used.
    """

    def __init__(
        self, samples: _Samples, order: TrainingOrder, *, num_workers: int, timeout: float, max_bad_images: int
    ):
        """Create the loader; `timeout` is the number of seconds that a worker may take for a batch."""
        self._samples, self._order = samples, order
        self._num_workers, self._timeout = num_workers, timeout
        self._bad_images = _BadImages("training", max_bad_images)

    def __iter__(self) -> Iterator[list[Record]]:
        for batch in self._batches():
            next(self._order)
            for record in batch:
                self._bad_images.count(record.pop(ERRORS, ()), is_replaced="image" in record)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs to continue with the next batch."""
        return self._order.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint; to be called before the first batch."""
        self._order.load_state_dict(state)

    def _batches(self) -> Iterator[list[Record]]:
        batches = iter(
            DataLoader(
                self._samples,
                batch_sampler=self._order.copy(),
                num_workers=self._num_workers,
                timeout=CHECK if self._num_workers else 0,
                collate_fn=_as_list,
                worker_init_fn=_handle_signals,
                multiprocessing_context=_context() if self._num_workers else None,
                generator=torch.Generator(),  # for the seeds of workers, not taken from the numbers of a step
            )
        )
        if getattr(signal.getsignal(signal.SIGCHLD), "__module__", "").startswith("torch."):
            # torch's handler raises an error wherever this process is, such as in the middle of an optimizer step. A
            # worker that has died is also noticed when its batch is due.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        waited = 0.0
        while True:
            try:
                batch = next(batches)
            except (EOFError, OSError, UnpicklingError) as error:  # the connection to a worker: see _Samples for others
                raise InputError(_ended(str(error))) from error
            except RuntimeError as error:
                waited += CHECK
                if str(error).startswith("DataLoader timed out") and not 0 < self._timeout <= waited:
                    continue  # no worker has died, and one may still be at work
                if problem := _worker_problem(str(error), waited):
                    raise InputError(problem) from error
                raise
            waited = 0.0
            yield batch


class TestLoader:
    """A loader of test batches.

    Images that cannot be used are left out, so that they count as images without detections. Iterating raises
    InputError if there are more than `max_bad_images`.
    """

    __test__ = False  # not a test for pytest

    def __init__(self, loader: Any, max_bad_images: int):
        """Wrap a DataLoader with an `_ErrorReturningMapper`."""
        self._loader, self._bad_images = loader, _BadImages("test", max_bad_images)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[Record]]:
        for batch in self._loader:
            for record in batch:
                self._bad_images.count(record.get(ERRORS, ()), is_replaced=True)
            if usable := [record for record in batch if ERRORS not in record]:
                yield usable


class _BadImages:
    """Counts the images that cannot be used."""

    def __init__(self, kind: str, maximum: int):
        self._kind, self._maximum = kind, maximum
        self._names: set[str] = set()

    def count(self, errors: Sequence[tuple[str, Exception]], *, is_replaced: bool) -> None:
        """Log an image the first time.

        Raises:
            InputError: there are more images than the maximum, or one was not replaced.
        """
        for name, error in errors:
            if not self._maximum or not is_replaced:
                raise InputError(str(error)) from error
            if name in self._names:
                continue
            self._names.add(name)
            if len(self._names) > self._maximum:
                raise InputError(
                    f"{error}. This is {self._kind} image {len(self._names)} that cannot be used, and "
                    f"DATALOADER.MAX_BAD_IMAGES allows {self._maximum}"
                ) from error
            logger.warning(
                "%s. It is left out: %s image %d of at most %d that cannot be used (DATALOADER.MAX_BAD_IMAGES)",
                error, self._kind, len(self._names), self._maximum,
            )  # fmt: skip


class _Samples(TorchDataset[Record]):
    """The augmented images of samples; what is random about each depends on the sample alone."""

    def __init__(self, records: Any, mapper: Mapper):
        self._records, self._mapper = records, _ErrorReturningMapper(mapper)

    def __getitem__(self, sample: Sample) -> Record:
        errors: list[tuple[str, Exception]] = []
        for offset in range(min(MAX_TRIES, len(self._records))):
            with seeded(*sample, offset):
                result = self._mapper(self._records[(sample.image + offset) % len(self._records)])
            errors += result.pop(ERRORS, ())
            if result:
                break
        return result | ({ERRORS: errors} if errors else {})


class _ErrorReturningMapper:
    def __init__(self, mapper: Mapper):
        self._mapper = mapper

    def __call__(self, record: Record) -> Record:
        try:
            return self._mapper(record)
        except (InputError, OSError) as error:
            return {ERRORS: [(record["file_name"], error)]}


def _num_workers(cfg: CfgNode) -> int:
    """Return DATALOADER.NUM_WORKERS, at most one for each core: more of them only wait."""
    return min(cfg.DATALOADER.NUM_WORKERS, num_cores())


def _context() -> str | None:
    """Return how workers are started: forked ones share what is loaded; to start anew takes each of them seconds."""
    return "fork" if "fork" in multiprocessing.get_all_start_methods() else None


def _as_list(batch: list[Record]) -> list[Record]:
    return batch


def _handle_signals(worker: int) -> None:
    """Leave it to the main process to end this worker.

    Schedulers send signals to all processes of a job, and the training needs its workers until it has been saved.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # A worker that the main process cannot end in another way is sent SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_GRACE))


def _worker_problem(message: str, waited: float) -> str:
    """Explain an error of torch's DataLoader about a worker; "" for other errors."""
    if message.startswith("DataLoader timed out"):
        return (
            f"a worker has not finished its images for {waited:g} seconds (DATALOADER.TIMEOUT). A network drive that "
            "does not respond, or a machine without free memory, may be the reason"
        )
    return _ended(message) if message.startswith("DataLoader worker") else ""


def _ended(message: str) -> str:
    return (
        f"a worker that loads images has ended ({message.rstrip('. ')}). The system kills one if it runs out of memory: "
        "lower DATALOADER.NUM_WORKERS or the size of the images"
    )
