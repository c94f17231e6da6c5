"""Checkpoints from which a training is resumed."""

from __future__ import annotations

import time

from d2_detr.checkpoint.checkpointer import LAST, DetrCheckpointer
from d2_detr.engine.bad_steps import check_weights
from d2_detr.engine.interruption import Interruption
from d2_detr.utils.errors import Interrupted

from detectron2.engine import HookBase
from detectron2.utils import comm


class SaveCheckpoints(HookBase):
    """Saves the state after a step: periodically, before an evaluation, and if a signal asks to stop.

    The hook belongs between the hooks that are part of a step, such as the schedule, and those that evaluate and write
    metrics. A training that is resumed from its checkpoints begins with the latter: an evaluation that was interrupted
    is repeated, and no metric is missing.
    """

    def __init__(
        self,
        checkpointer: DetrCheckpointer,
        interruption: Interruption,
        *,
        period: int,
        minutes: float,
        eval_period: int,
    ):
        """Create the hook.

        Args:
            checkpointer: saves the training.
            interruption: asks to stop.
            period: iterations between checkpoints that are kept, model_0000999.pth and so on.
            minutes: after which model_last.pth is saved.
            eval_period: iterations between evaluations, 0 for none.
        """
        self._checkpointer = checkpointer
        self._interruption = interruption
        self._period = period
        self._seconds = 60 * minutes
        self._eval_period = eval_period

    def before_train(self) -> None:
        """Start to measure the time."""
        self._saved_at = time.monotonic()

    def after_step(self) -> None:
        """Save if it is time to.

        Raises:
            Interrupted: a signal has asked to stop; the training is saved. The last step has nothing to stop.
            InputError: the training has diverged.
            OSError: the checkpoint cannot be written.
        """
        done = self.trainer.iter + 1
        is_last = done == self.trainer.max_iter
        is_interrupted = self._interruption.is_requested() and not is_last
        if done % self._period == 0:
            self._save(f"model_{self.trainer.iter:07d}")
        elif is_last or is_interrupted or self._is_evaluated(done) or self._is_overdue():
            self._save(LAST)
        if is_interrupted:
            comm.synchronize()
            raise Interrupted(self._interruption.signal)

    def _is_evaluated(self, done: int) -> bool:
        return self._eval_period > 0 and done % self._eval_period == 0

    def _is_overdue(self) -> bool:
        return self._seconds > 0 and time.monotonic() - self._saved_at > self._seconds

    def _save(self, name: str) -> None:
        check_weights(self._checkpointer.model, self.trainer.iter)
        self._checkpointer.save(name, iteration=self.trainer.iter)
        self._saved_at = time.monotonic()
