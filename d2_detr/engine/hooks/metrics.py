"""Metrics of a training: their history, and the files to which they are written.

Of a run that was killed and resumed, metrics.json has the same lines as of one that was not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fvcore.common.history_buffer import HistoryBuffer

from d2_detr.utils.files import atomic_write

from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter, JSONWriter, TensorboardXWriter

METRICS_FILE = "metrics.json"
WINDOW = 20  # iterations whose median the writers write
MAX_HISTORY = 1000  # iterations that are kept, which the estimate of the remaining time uses
# Times of a process, not results of a training: a resumed run measures them anew.
TIMES = frozenset({"time", "data_time", "rank_data_time", "eta_seconds"})


class WriteMetrics(HookBase):
    """Writes the metrics periodically and after every evaluation, from where a resumed training continues.

    A writer only knows the latest value of a metric, so one of two evaluations before its next line would be lost. The
    first of the trainer's writers, which logs lines for a person, keeps to the period. The hook belongs into every
    process, after those that evaluate.
    """

    def __init__(self, folder: str | Path, *, period: int, eval_period: int):
        """Create the hook.

        Args:
            folder: of metrics.json.
            period: iterations between lines.
            eval_period: iterations between evaluations, 0 for none.
        """
        self._file = Path(folder) / METRICS_FILE
        self._period = period
        self._eval_period = eval_period
        self._writers: list[EventWriter] = []
        self.last_written = -1  # iteration

    def before_train(self) -> None:
        """Open the writers."""
        # The evaluation at the end of a complete training is repeated when it is resumed.
        self.last_written = min(self.last_written, self.trainer.max_iter - 1)
        if comm.is_main_process():
            drop_lines(self._file, after=self.last_written)
            self._writers = self.trainer.build_writers()
            for writer in self._writers:
                if isinstance(writer, JSONWriter | TensorboardXWriter):
                    writer._last_write = self.last_written

    def after_step(self) -> None:
        """Write if it is time to.

        Raises:
            OSError: a file cannot be written, such as on a full disk.
        """
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            self._write(self._writers)
        elif self._eval_period and done % self._eval_period == 0:
            self._write(self._writers[1:])

    def after_train(self) -> None:
        """Write the rest, and close the writers."""
        self._write(self._writers)
        for writer in self._writers:
            writer.close()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs to know."""
        return {"last_written": self.last_written}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.last_written = state_dict["last_written"]

    def _write(self, writers: list[EventWriter]) -> None:
        for writer in writers:
            try:
                writer.write()
            except OSError as error:  # which does not say which file was open
                raise OSError(error.errno, f"cannot be written: {error.strerror}", str(self._file)) from error
        self.last_written = self.trainer.storage.iter


def new_storage(start_iter: int, state: Mapping[str, Any] | None = None) -> EventStorage:
    """Create a storage of bounded size, with the values of a resumed training.

    Args:
        start_iter: the first iteration.
        state: from storage_state, or None.
    """
    storage = EventStorage(start_iter)
    storage.histories().default_factory = partial(HistoryBuffer, MAX_HISTORY)  # type: ignore[attr-defined]
    for name, scalar in (state or {}).items():
        for value, iteration in scalar["values"]:
            storage.put_scalar(name, value, smoothing_hint=scalar["smoothing_hint"], cur_iter=iteration)
    return storage


def storage_state(storage: EventStorage, last_iteration: int) -> dict[str, Any]:
    """Return the latest values up to an iteration, as far as a writer needs them."""
    hints = storage.smoothing_hints()
    state = {}
    for name, history in storage.histories().items():
        values = [(value, iteration) for value, iteration in history.values()[-WINDOW:] if iteration <= last_iteration]
        if values and name not in TIMES:
            state[name] = {"values": values, "smoothing_hint": hints[name]}
    return state


def drop_lines(path: Path, *, after: int) -> None:
    """Remove the lines of a metrics.json that are incomplete, or that belong to a later iteration."""
    if not path.is_file():
        return
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and _iteration(line) <= after]
    if kept != lines:
        with atomic_write(path) as temporary:
            temporary.write_text("".join(kept))


def _iteration(line: str) -> float:
    try:
        return int(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
