"""Training metrics: an EventStorage collects them, writers put them into files and on the terminal."""

import datetime
import itertools
import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from fvcore.common.history_buffer import HistoryBuffer

from detectron2.utils.file_io import PathManager

_storages: list["EventStorage"] = []


def get_event_storage() -> "EventStorage":
    """The innermost `with EventStorage()` that is active."""
    assert _storages, "get_event_storage() needs an active `with EventStorage(...)`"
    return _storages[-1]


def has_event_storage() -> bool:
    return bool(_storages)


class EventStorage:
    """Keeps the history of every scalar, and images until a writer takes them."""

    def __init__(self, start_iter: int = 0):
        self.iter = start_iter
        self._prefix = ""
        self._histories: dict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._latest: dict[str, tuple[float, int]] = {}
        self._smoothing_hints: dict[str, bool] = {}
        self._vis_data: list[tuple[str, torch.Tensor | np.ndarray, int]] = []

    @property
    def iter(self) -> int:
        """The current iteration, under which new data is filed."""
        return self._iter

    @iter.setter
    def iter(self, value: int) -> None:
        self._iter = int(value)

    iteration = iter

    def step(self) -> None:
        self._iter += 1

    def put_scalar(self, name: str, value: float, smoothing_hint: bool = True, cur_iter: int | None = None) -> None:
        """Append to the history of `name`; `smoothing_hint` says that writers should show a median, and is constant."""
        name, value = self._prefix + name, float(value)
        cur_iter = self._iter if cur_iter is None else cur_iter
        self._histories[name].update(value, cur_iter)
        self._latest[name] = value, cur_iter
        hint = self._smoothing_hints.setdefault(name, smoothing_hint)
        assert hint == smoothing_hint, f"Scalar {name} was put with {smoothing_hint=} after {hint}"

    def put_scalars(self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **kwargs: float) -> None:
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint, cur_iter)

    def put_image(self, img_name: str, img_tensor: torch.Tensor | np.ndarray) -> None:
        """Keep a picture (3, H, W), RGB, uint8 in [0, 255] or float in [0, 1], for the next writer."""
        self._vis_data.append((img_name, img_tensor, self._iter))

    def clear_images(self) -> None:
        self._vis_data = []

    def history(self, name: str) -> HistoryBuffer:
        if name not in self._histories:
            raise KeyError(f"No history of metric {name!r}; there is {sorted(self._histories)}")
        return self._histories[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        return self._histories

    def latest(self) -> dict[str, tuple[float, int]]:
        """{name: (last value, its iteration)}"""
        return self._latest

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Like `latest`, with the median of the last `window_size` iterations where smoothing was asked for."""
        return {
            name: (self._median(name, window_size) if self._smoothing_hints[name] else value, iteration)
            for name, (value, iteration) in self._latest.items()
        }

    def _median(self, name: str, window_size: int) -> float:
        return self._histories[name].median(self.count_samples(name, window_size))

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """Number of values of `name` that fall into its last `window_size` iterations."""
        newest_first = [iteration for _, iteration in reversed(self._histories[name].values())]
        return sum(1 for _ in itertools.takewhile(lambda i: i > newest_first[0] - window_size, newest_first))

    def smoothing_hints(self) -> dict[str, bool]:
        return self._smoothing_hints

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Prefix every name put inside with `name/`."""
        outer, self._prefix = self._prefix, name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._prefix = outer

    def __enter__(self) -> "EventStorage":
        _storages.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        assert _storages[-1] is self, "EventStorage contexts must be left in reverse order"
        _storages.pop()


class EventWriter:
    """Takes what it wants from the current EventStorage at each `write`."""

    def write(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


class JSONWriter(EventWriter):
    """Append one JSON object per iteration, keys sorted, to a file (`metrics.json` in DefaultTrainer)."""

    def __init__(self, json_file: str, window_size: int = 20):
        self._file = PathManager.open(json_file, "a")
        self._window_size = window_size
        self._last_write = -1

    def write(self) -> None:
        lines: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(self._window_size).items():
            if iteration > self._last_write:
                lines[iteration][name] = value
        for iteration, scalars in lines.items():
            self._file.write(json.dumps({**scalars, "iteration": iteration}, sort_keys=True) + "\n")
        self._last_write = max(lines, default=self._last_write)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class TensorboardXWriter(EventWriter):
    """Write scalars and images for TensorBoard; `kwargs` go to its SummaryWriter."""

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any):
        self._writer_args = {"log_dir": log_dir, **kwargs}
        self._window_size = window_size
        self._last_write = -1

    @cached_property  # no file before there is something to write
    def _writer(self):
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(**self._writer_args)

    def write(self) -> None:
        storage = get_event_storage()
        last_write = self._last_write
        for name, (value, iteration) in storage.latest_with_smoothing_hint(self._window_size).items():
            if iteration > last_write:
                self._writer.add_scalar(name, value, iteration)
                self._last_write = max(self._last_write, iteration)
        for image in storage._vis_data:
            self._writer.add_image(*image)
        storage.clear_images()

    def close(self) -> None:
        if "_writer" in self.__dict__:
            self._writer.close()


class CommonMetricPrinter(EventWriter):
    """Log the progress on one line: ETA (if `max_iter` is known), losses, times, learning rate, GPU memory."""

    def __init__(self, max_iter: int | None = None, window_size: int = 20):
        self.logger = logging.getLogger(__name__)
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write: tuple[int, float] | None = None  # iteration, clock in seconds

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter == self._max_iter:  # after the end only other writers have news
            return
        eta = self._eta(storage)
        histories = storage.histories()
        iter_time, data_time, lr = (histories.get(name) for name in ("time", "data_time", "lr"))
        times = ""
        if iter_time:
            times += f"time: {iter_time.global_avg():.4f}  last_time: {iter_time.latest():.4f}  "
        if data_time:
            average = data_time.avg(storage.count_samples("data_time", self._window_size))
            times += f"data_time: {average:.4f}  last_data_time: {data_time.latest():.4f}  "
        self.logger.info(
            f" {f'eta: {eta}  ' if eta else ''}iter: {storage.iter}"
            f"  {self._medians(storage, 'loss')}  {self._medians(storage, '[metric]')}  {times}"
            f" lr: {f'{lr.latest():.5g}' if lr else 'N/A'}  "
            + (f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M" if torch.cuda.is_available() else "")
        )

    def _medians(self, storage: EventStorage, marker: str) -> str:
        names = [name for name in storage.histories() if marker in name]
        return "  ".join(f"{name}: {storage._median(name, self._window_size):.4g}" for name in names)

    def _eta(self, storage: EventStorage) -> str | None:
        """Remaining time: from the iteration times if they are recorded, else from the clock between two writes."""
        if self._max_iter is None:
            return None
        remaining = self._max_iter - storage.iter - 1
        if "time" in storage.histories():
            seconds = storage.history("time").median(1000) * remaining
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
            return str(datetime.timedelta(seconds=int(seconds)))
        previous, self._last_write = self._last_write, (storage.iter, time.perf_counter())
        if previous is None or previous[0] == storage.iter:
            return None
        seconds = (self._last_write[1] - previous[1]) / (storage.iter - previous[0]) * remaining
        return str(datetime.timedelta(seconds=int(seconds)))
