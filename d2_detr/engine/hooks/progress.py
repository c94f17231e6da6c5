"""How far a training is: plain lines in a log, one line that moves in a terminal."""

from __future__ import annotations

import datetime
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from d2_detr.engine.logs import in_console
from d2_detr.evaluation.losses import SHOWN

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

logger = logging.getLogger(__name__)

# Of a moving line, how each is written. A narrow terminal has room for the first of them.
SHOWN_IN_TERMINAL = {
    "AP": ("bbox/AP", ".1f"), "mask AP": ("segm/AP", ".1f"), "PQ": ("panoptic_seg/PQ", ".1f"),
    "loss": ("total_loss", ".2f"), "val loss": ("validation/total_loss", ".2f"), "class_error": ("class_error", ".0f"),
    "epoch": ("epoch", ".1f"),
}  # fmt: skip
LINE = "{percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
SHOWN_OF_EVALUATION = {
    "AP": "bbox/AP", "AP50": "bbox/AP50", "mask AP": "segm/AP", "mask AP50": "segm/AP50", "PQ": "panoptic_seg/PQ",
    **{name: f"validation/{name}" for name in ("total_loss", "class_error", "cardinality_error")},
}  # fmt: skip
OF_CLASS = "bbox/AP-"
MOST_CLASSES = 10  # whose AP a line has room for
FIRST_ESTIMATE = 5  # iterations; the very first take longer, and Detectron2 does not count them
WINDOW = 20  # iterations that a figure is the median of


class ProgressPrinter(EventWriter):
    """One line: how far, how long still, the losses and the two errors, the rate, seconds an iteration."""

    def __init__(self, max_iter: int, log: logging.Logger = logger):
        self.max_iter = max_iter
        self.log = log

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter >= self.max_iter:  # called once more behind the last iteration
            return
        histories = storage.histories()
        parts = [f"iter {storage.iter + 1}/{self.max_iter}"]
        if "time" in histories:
            left = histories["time"].median(1000) * (self.max_iter - storage.iter - 1)
            storage.put_scalar("eta_seconds", left, smoothing_hint=False)
            parts.insert(0, f"eta {datetime.timedelta(seconds=int(left))}")
        parts += [f"{name} {_median(storage, name):.4g}" for name in SHOWN if name in histories]
        if "lr" in histories:
            parts.append(f"lr {histories['lr'].latest():.3g}")
        parts += [f"{name} {_median(storage, name):.3f}s" for name in ("time", "data_time") if name in histories]
        self.log.info("  ".join(parts))


class FirstEstimate(HookBase):
    """Tells early how long a training will take: the first of the plain lines is 20 iterations away, which are minutes
    without a GPU."""

    def after_step(self) -> None:
        if self.trainer.iter + 1 - self.trainer.start_iter == FIRST_ESTIMATE:
            seconds = self.trainer.storage.history("time").latest()
            left = datetime.timedelta(seconds=int(seconds * (self.trainer.max_iter - self.trainer.iter - 1)))
            logger.info("%.2g seconds an iteration: %s to go, evaluations aside", seconds, left)


class WriteEvaluations(HookBase):
    """Has every evaluation written, also one between two lines of the losses.

    A writer knows the newest value of a metric alone, so of two evaluations before its next line one would be lost. It
    belongs behind the PeriodicWriter with these writers.
    """

    def __init__(self, writers: Sequence[EventWriter], eval_period: int):
        self._writers = writers
        self._eval_period = eval_period

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self._eval_period == 0:
            for writer in self._writers:
                writer.write()


class ProgressBar(HookBase):
    """A line in the terminal that moves, with time left, losses and AP; what is logged appears above it."""

    def __init__(self) -> None:
        self._open = ExitStack()

    def before_train(self) -> None:
        named = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
        self._open.enter_context(logging_redirect_tqdm([log for log in named if any(map(in_console, log.handlers))]))
        trainer = self.trainer
        self._bar = self._open.enter_context(
            tqdm(total=trainer.max_iter, initial=trainer.start_iter, bar_format=LINE, dynamic_ncols=True)
        )

    def after_step(self) -> None:
        self._bar.update()
        storage = self.trainer.storage
        parts = []
        for short, (metric, how) in SHOWN_IN_TERMINAL.items():
            # Of several test sets each has its name in front; one of them is shown.
            same = [n for n in storage.histories() if n == metric or ("/" in metric and n.endswith(f"/{metric}"))]
            for name in same[:1]:
                # How far it is, and what an evaluation measured, have no median over the last iterations.
                newest = "/" in metric or short == "epoch"
                value = storage.history(name).latest() if newest else _median(storage, name)
                parts.append(f"{short} {value:{how}}")
        self._bar.set_postfix_str(", ".join(parts), refresh=False)

    def after_train(self) -> None:
        self._open.close()


def evaluation_line(results: Mapping) -> str:
    """What the evaluation of a test set found, in a line."""
    found = flatten_results_dict(results)
    parts = [f"{short} {found[name]:.2f}" for short, name in SHOWN_OF_EVALUATION.items() if name in found]
    of_classes = {name.removeprefix(OF_CLASS): ap for name, ap in found.items() if name.startswith(OF_CLASS)}
    if 1 < len(of_classes) <= MOST_CLASSES:
        parts.append(f"({', '.join(f'{name} {ap:.2f}' for name, ap in of_classes.items())})")
    return "  ".join(parts) or "nothing to measure"


def in_terminal() -> bool:
    """Whether somebody looks at what tqdm writes: a terminal without a size, as automata have it, shows nothing."""
    return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0


def _median(storage: EventStorage, name: str) -> float:
    return storage.history(name).median(storage.count_samples(name, WINDOW))
