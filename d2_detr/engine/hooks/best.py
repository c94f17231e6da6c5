"""The best checkpoint of a training, and early stopping."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from d2_detr.checkpoint.checkpointer import BEST, DetrCheckpointer
from d2_detr.evaluation.error_analysis import best_threshold
from d2_detr.structures.dataset import Dataset
from d2_detr.utils.files import atomic_write

from detectron2.engine import HookBase
from detectron2.utils import comm

logger = logging.getLogger(__name__)


class BestCheckpoint(HookBase):
    """Saves the model with the highest value of a metric as model_best.pth, and stops early.

    With it are saved its best score threshold, and as model_best_results.json its predictions for the validation
    images. What the hook knows survives a resume. It belongs after the EvalHook, in every process.

    Detectron2's BestCheckpointer forgets the best value on a resume, and makes the trainer resume from the best
    checkpoint instead of the last one.
    """

    def __init__(
        self,
        checkpointer: DetrCheckpointer,
        metrics: Sequence[str],
        *,
        dataset: Dataset,
        results_file: Path,
        evaluation: Callable[[], dict[str, Any]],
        eval_period: int,
        patience: int = 0,
    ):
        """Create the hook.

        Args:
            checkpointer: saves the model.
            metrics: names under which an evaluation is stored, such as "segm/AP"; later ones break ties.
            dataset: the validation set, with instances.
            results_file: where an evaluation writes its predictions, in COCO's results format.
            evaluation: returns the complete latest evaluation.
            eval_period: iterations between evaluations.
            patience: evaluations without improvement after which the training stops; 0 for never.
        """
        self._checkpointer = checkpointer
        self._metrics = metrics
        self._dataset = dataset
        self._results_file = results_file
        self._evaluation = evaluation
        self._eval_period = eval_period
        self._patience = patience
        self.best = -math.inf
        self.tie_breakers: list[float] = []
        self.best_iteration = -1
        self.best_evaluation: dict[str, Any] = {}
        self.waited = 0

    def after_step(self) -> None:
        """Compare after an evaluation, and stop all processes if patience is exhausted."""
        done = self.trainer.iter + 1
        if done % self._eval_period == 0 and done < self.trainer.max_iter:
            self._compare()
            # Only the main process has the metric.
            if any(comm.all_gather(bool(self._patience and self.waited >= self._patience))):
                self._stop()

    def after_train(self) -> None:
        """Compare the last evaluation, and log the best one."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._compare()
        if self.best_iteration >= 0:
            logger.info(
                "Best %s: %.2f at iteration %d, saved as %s.pth",
                self._metrics[0], self.best, self.best_iteration + 1, BEST,
            )  # fmt: skip

    @property
    def best_results_file(self) -> Path:
        """The predictions of the best model, in COCO's results format."""
        return Path(self._checkpointer.save_dir) / f"{BEST}_results.json"

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs to know."""
        names = ("best", "tie_breakers", "best_iteration", "best_evaluation", "waited")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        vars(self).update(state_dict)

    def _compare(self) -> None:
        latest = self.trainer.storage.latest()
        if self._metrics[0] not in latest:
            return
        value, *tie_breakers = (latest[name][0] if name in latest else -math.inf for name in self._metrics)
        self.waited += 1
        if (value, *tie_breakers) <= (self.best, *self.tie_breakers) or math.isnan(value):
            return
        self.best, self.tie_breakers, self.waited = value, tie_breakers, 0
        self.best_iteration = min(self.trainer.iter, self.trainer.max_iter - 1)
        self.best_evaluation = self._evaluation()
        has_results = self._results_file.is_file()
        threshold = best_threshold(self._dataset, self._results_file) if has_results else None
        self._checkpointer.save(BEST, iteration=self.best_iteration, threshold=threshold)
        logger.info("Best %s so far, saved as %s.pth", self._metrics[0], BEST)
        if has_results:
            with atomic_write(self.best_results_file) as temporary:
                shutil.copyfile(self._results_file, temporary)

    def _stop(self) -> None:
        logger.info("Stopping early: no better %s in %d evaluations", self._metrics[0], self._patience)
        self.trainer.stopped = True
