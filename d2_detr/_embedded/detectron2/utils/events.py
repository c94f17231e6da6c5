"""Training metrics: a storage that collects them, and their writers."""

import datetime
import itertools
import json
import logging
import os
import time
from collections import defaultdict
from functools import cached_property
from typing import Any

import torch
from fvcore.common.history_buffer import HistoryBuffer

from detectron2.utils.file_io import PathManager

logger = logging.getLogger(__name__)
_storages: list["EventStorage"] = []


def get_event_storage() -> "EventStorage":
    """Return the innermost active `with EventStorage()`."""
    assert _storages, "get_event_storage() must be called within `with EventStorage()`"
    return _storages[-1]


def has_event_storage() -> bool:
    """Return whether a `with EventStorage()` is active."""
    return bool(_storages)


class EventStorage:
    """Keep the history of every scalar; new values belong to iteration `iter`."""

    def __init__(self, start_iter: int = 0):
        self.iter = start_iter
        self._histories: dict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._latest: dict[str, tuple[float, int]] = {}
        self._smoothing_hints: dict[str, bool] = {}

    def step(self) -> None:
        self.iter += 1

    def put_scalar(self, name: str, value: float, smoothing_hint: bool = True, cur_iter: int | None = None) -> None:
        """Append a value; writers show a median of scalars with a `smoothing_hint`."""
        value, cur_iter = float(value), self.iter if cur_iter is None else cur_iter
        self._histories[name].update(value, cur_iter)
        self._latest[name] = value, cur_iter
        hint = self._smoothing_hints.setdefault(name, smoothing_hint)
        assert hint == smoothing_hint, f"Scalar {name!r}: {smoothing_hint=}, but it was {hint} before"

    def put_scalars(self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **kwargs: float) -> None:
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint, cur_iter)

    def history(self, name: str) -> HistoryBuffer:
        if name not in self._histories:
            raise KeyError(f"Scalar {name!r} has no history; stored are {sorted(self._histories)}")
        return self._histories[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        return self._histories

    def smoothing_hints(self) -> dict[str, bool]:
        return self._smoothing_hints

    def latest(self) -> dict[str, tuple[float, int]]:
        """Return {name: (last value, its iteration)}."""
        return self._latest

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Return `latest`, with the median of scalars with a smoothing hint."""
        return {
            name: (self._median(name, window_size) if self._smoothing_hints[name] else value, iteration)
            for name, (value, iteration) in self._latest.items()
        }

    def _median(self, name: str, window_size: int) -> float:
        return self._histories[name].median(self.count_samples(name, window_size))

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """Count the values in the `window_size` iterations up to the last value."""
        newest_first = [iteration for _, iteration in reversed(self._histories[name].values())]
        return sum(1 for _ in itertools.takewhile(lambda i: i > newest_first[0] - window_size, newest_first))

    def __enter__(self) -> "EventStorage":
        _storages.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        assert _storages[-1] is self, "EventStorage contexts must be exited in reverse order"
        _storages.pop()


class EventWriter:
    """Base class of writers, which read the current EventStorage."""

    def write(self) -> None:
        """Write the scalars of interest."""
        raise NotImplementedError

    def close(self) -> None:
        """Release files."""


class _ScalarWriter(EventWriter):
    _last_write = -1
    _window_size: int

    def _new_scalars(self) -> dict[int, dict[str, float]]:
        """Return {iteration: {name: value}} of the scalars stored since the last call."""
        scalars: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(self._window_size).items():
            if iteration > self._last_write:
                scalars[iteration][name] = value
        self._last_write = max(scalars, default=self._last_write)
        return scalars


class JSONWriter(_ScalarWriter):
    """Append a JSON object with sorted keys per iteration to a file."""

    def __init__(self, json_file: str, window_size: int = 20):
        self._window_size = window_size
        self._file = PathManager.open(json_file, "a")

    def write(self) -> None:
        for iteration, scalars in self._new_scalars().items():
            self._file.write(json.dumps({**scalars, "iteration": iteration}, sort_keys=True) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class TensorboardXWriter(_ScalarWriter):
    """Write scalars for TensorBoard; `kwargs` are passed on to its SummaryWriter."""

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any):
        self._window_size = window_size
        self._writer_args = {"log_dir": log_dir, **kwargs}

    @cached_property  # creates its file only when there is something to write
    def _writer(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(**self._writer_args)

    def write(self) -> None:
        for iteration, scalars in self._new_scalars().items():
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        if "_writer" in self.__dict__:
            self._writer.close()


class CommonMetricPrinter(EventWriter):
    """Log the ETA (given `max_iter`), losses, times, learning rate and GPU memory."""

    def __init__(self, max_iter: int | None = None, window_size: int = 20):
        self.logger = logger
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write: tuple[int, float] | None = None  # iteration, time (s)

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter == self._max_iter:  # the last line has been logged
            return
        histories = storage.histories()
        iter_time, data_time, lr = (histories.get(name) for name in ("time", "data_time", "lr"))
        eta = times = ""
        if iter_time:
            times += f"time: {iter_time.global_avg():.4f}  last_time: {iter_time.latest():.4f}  "
        if (seconds := self._eta_seconds(storage)) is not None:
            eta = f"eta: {datetime.timedelta(seconds=int(seconds))}  "
        if data_time:
            average = data_time.avg(storage.count_samples("data_time", self._window_size))
            times += f"data_time: {average:.4f}  last_data_time: {data_time.latest():.4f}  "
        losses, metrics = self._medians(storage, "loss"), self._medians(storage, "[metric]")
        rate = f"{lr.latest():.5g}" if lr else "N/A"
        memory = f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M" if torch.cuda.is_available() else ""
        self.logger.info(f" {eta}iter: {storage.iter}  {losses}  {metrics}  {times} lr: {rate}  {memory}")

    def _eta_seconds(self, storage: EventStorage) -> float | None:
        """Estimate from the scalar `time` or, without it, the time since the last call."""
        if self._max_iter is None:
            return None
        remaining = self._max_iter - storage.iter - 1
        if "time" in storage.histories():
            seconds = storage.history("time").median(1000) * remaining
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
            return seconds
        last, self._last_write = self._last_write, (storage.iter, time.perf_counter())
        return last and remaining * (self._last_write[1] - last[1]) / (storage.iter - last[0])

    def _medians(self, storage: EventStorage, marker: str) -> str:
        names = [name for name in storage.histories() if marker in name]
        return "  ".join(f"{name}: {storage._median(name, self._window_size):.4g}" for name in names)
