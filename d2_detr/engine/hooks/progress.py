"""Progress of a training: plain lines in a log, one moving line in a terminal."""

from __future__ import annotations

import datetime
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from d2_detr.engine.logs import ConsoleFilter, is_console
from d2_detr.evaluation.losses import REPORTED

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

logger = logging.getLogger(__name__)

# The moving line: what it shows, and in which format. A narrow terminal has room for the first of them.
BAR_METRICS = {
    "AP": ("bbox/AP", ".1f"), "mask AP": ("segm/AP", ".1f"), "PQ": ("panoptic_seg/PQ", ".1f"),
    "loss": ("total_loss", ".2f"), "val loss": ("validation/total_loss", ".2f"), "class_error": ("class_error", ".0f"),
    "epoch": ("epoch", ".1f"),
}  # fmt: skip
BAR_FORMAT = "{percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
EVALUATION_METRICS = {
    "AP": "bbox/AP", "AP50": "bbox/AP50", "mask AP": "segm/AP", "mask AP50": "segm/AP50", "PQ": "panoptic_seg/PQ",
    **{name: f"validation/{name}" for name in ("total_loss", "class_error", "cardinality_error")},
}  # fmt: skip
CLASS_PREFIX = "bbox/AP-"
MAX_CLASSES = 10  # whose AP fits into a line
NUM_TIMED = 5  # iterations before the first estimate; Detectron2 does not time the very first, which take longer
WINDOW = 20  # iterations whose median is shown


class ProgressPrinter(EventWriter):
    """Logs a line: time left, losses, the two errors, learning rate, seconds per iteration."""

    def __init__(self, max_iter: int, level: int = logging.INFO):
        """Create the writer; at level DEBUG its lines go to the log file only."""
        self.max_iter = max_iter
        self.level = level

    def write(self) -> None:
        """Log the current iteration."""
        storage = get_event_storage()
        if storage.iter >= self.max_iter:  # called once more after the last iteration
            return
        histories = storage.histories()
        parts = [f"iter {storage.iter + 1}/{self.max_iter}"]
        if "time" in histories:
            left = histories["time"].median(1000) * (self.max_iter - storage.iter - 1)
            storage.put_scalar("eta_seconds", left, smoothing_hint=False)
            parts.insert(0, f"eta {datetime.timedelta(seconds=int(left))}")
        parts += [f"{name} {_median(storage, name):.4g}" for name in REPORTED if name in histories]
        if "lr" in histories:
            parts.append(f"lr {histories['lr'].latest():.3g}")
        parts += [f"{name} {_median(storage, name):.3f}s" for name in ("time", "data_time") if name in histories]
        logger.log(self.level, "  ".join(parts))


class TimeEstimate(HookBase):
    """Logs early how long a training will take.

    Without a GPU, the first of the plain lines, after 20 iterations, may take minutes.
    """

    def after_step(self) -> None:
        """Log the estimate once."""
        if self.trainer.iter + 1 - self.trainer.start_iter == NUM_TIMED:
            seconds = self.trainer.storage.history("time").latest()
            left = datetime.timedelta(seconds=int(seconds * (self.trainer.max_iter - self.trainer.iter - 1)))
            logger.info("%.2g seconds per iteration: %s left, without evaluations", seconds, left)


class ProgressBar(HookBase):
    """A moving line in the terminal with time left, AP and losses; log lines appear above it."""

    def __init__(self) -> None:
        """Create the hook; the line appears when the training begins."""
        self._open = ExitStack()

    def before_train(self) -> None:
        """Show the line."""
        named = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
        redirected = [log for log in named if any(map(is_console, log.handlers))]
        self._open.enter_context(logging_redirect_tqdm(redirected))
        for handler in (handler for log in redirected for handler in log.handlers if is_console(handler)):
            handler.addFilter(ConsoleFilter(tables=False))  # tqdm's handler has the formatter of ours, but no filter
        trainer = self.trainer
        self._bar = self._open.enter_context(
            tqdm(total=trainer.max_iter, initial=trainer.start_iter, bar_format=BAR_FORMAT, dynamic_ncols=True)
        )

    def after_step(self) -> None:
        """Move the line."""
        self._bar.update()
        storage = self.trainer.storage
        parts = []
        for title, (metric, format) in BAR_METRICS.items():
            # With several test sets, a metric is prefixed with the name of its set; the first one is shown.
            names = [n for n in storage.histories() if n == metric or ("/" in metric and n.endswith(f"/{metric}"))]
            for name in names[:1]:
                is_current = "/" in metric or title == "epoch"  # not a value per iteration, to be smoothed
                value = storage.history(name).latest() if is_current else _median(storage, name)
                parts.append(f"{title} {value:{format}}")
        self._bar.set_postfix_str(", ".join(parts), refresh=False)

    def after_train(self) -> None:
        """Leave the line as it is."""
        self._open.close()


def evaluation_summary(results: Mapping[str, Any]) -> str:
    """Summarize the evaluation of a test set in a line."""
    flat = flatten_results_dict(results)
    parts = [f"{title} {flat[name]:.2f}" for title, name in EVALUATION_METRICS.items() if name in flat]
    class_ap = {name.removeprefix(CLASS_PREFIX): ap for name, ap in flat.items() if name.startswith(CLASS_PREFIX)}
    if 1 < len(class_ap) <= MAX_CLASSES:
        parts.append(f"({', '.join(f'{name} {ap:.2f}' for name, ap in class_ap.items())})")
    return "  ".join(parts) or "nothing was measured"


def in_terminal() -> bool:
    """Return whether stderr is a terminal of a known width; without one, tqdm shows nothing."""
    return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0


def _median(storage: EventStorage, name: str) -> float:
    return storage.history(name).median(storage.count_samples(name, WINDOW))
