"""What happens around the steps of a training."""

from __future__ import annotations

import datetime
import logging

from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

logger = logging.getLogger(__name__)

# The terms of the last decoder layer and the errors, as the console shows them; all of them are in metrics.json.
SHOWN = (
    "total_loss", "loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice", "class_error", "cardinality_error",
)  # fmt: skip
WINDOW = 20  # iterations that a figure is the median of


class ProgressPrinter(EventWriter):
    """One line: how far, how long still, the losses and the two errors, the rate, seconds an iteration."""

    def __init__(self, max_iter: int):
        self.max_iter = max_iter

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
        logger.info("  ".join(parts))


def _median(storage: EventStorage, name: str) -> float:
    return storage.history(name).median(storage.count_samples(name, WINDOW))
