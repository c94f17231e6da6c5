"""The best checkpoint of a training and the last, and its end where nothing gets better any more."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path
from typing import Any

from d2_detr.checkpoint.checkpointer import BEST, LAST, DetrCheckpointer
from d2_detr.engine.logs import console_spared
from d2_detr.evaluation.error_analysis import best_threshold_of
from d2_detr.utils.files import atomic_write

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm

logger = logging.getLogger(__name__)


class BestCheckpoint(HookBase):
    """Saves the model with the highest value of a metric as model_best.pth, with the best threshold of its scores, and
    its predictions for the validation pictures as model_best_results.json; what it knows survives a resume.

    It belongs behind the EvalHook, in every process. (Detectron2's BestCheckpointer forgets the best value on a resume,
    and resumes from the best checkpoint instead of the last.)
    """

    def __init__(
        self,
        checkpointer: DetrCheckpointer,
        metric: str,
        *,
        test_set: str,
        results_file: Path,
        eval_period: int,
        patience: int = 0,
    ):
        """
        Args:
            metric: as the evaluation stores it, like "bbox/AP".
            test_set: name of the dataset with the objects that are looked for.
            results_file: where the evaluation writes its predictions, in COCO's results format.
            eval_period: iterations from one evaluation to the next.
            patience: evaluations without a better value after which the training ends; 0 for never.
        """
        self._checkpointer = checkpointer
        self._metric = metric
        self._test_set = test_set
        self._results_file = results_file
        self._eval_period = eval_period
        self._patience = patience
        self.best = -math.inf
        self.best_iteration = -1
        self.waited = 0

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._eval_period == 0 and done < self.trainer.max_iter:
            self._compare()
            # The metric is in the main process alone.
            if any(comm.all_gather(bool(self._patience and self.waited >= self._patience))):
                self._stop()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self._compare()
        if self.best_iteration >= 0:
            logger.info("Best %s: %.2f at iteration %d, %s.pth", self._metric, self.best, self.best_iteration + 1, BEST)

    @property
    def kept_results(self) -> Path:
        """The predictions of the best model, in COCO's results format."""
        return Path(self._checkpointer.save_dir) / f"{BEST}_results.json"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_iteration": self.best_iteration, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)

    def _compare(self) -> None:
        if self._metric not in self.trainer.storage.latest():
            return
        value, _ = self.trainer.storage.latest()[self._metric]
        self.waited += 1
        if value > self.best:  # never of NaN
            iteration = min(self.trainer.iter, self.trainer.max_iter - 1)
            self.best, self.best_iteration, self.waited = value, iteration, 0
            found = self._results_file.is_file()
            threshold = best_threshold_of(self._test_set, self._results_file) if found else None
            with console_spared():
                self._checkpointer.save(BEST, iteration=iteration, threshold=threshold)
            logger.info("The best %s so far: saved as %s.pth", self._metric, BEST)
            if found:
                with atomic_write(self.kept_results) as temporary:
                    shutil.copyfile(self._results_file, temporary)

    def _stop(self) -> None:
        logger.info("%s has not risen in %d evaluations: the training ends here", self._metric, self._patience)
        self.trainer.stopped = True
        self._checkpointer.save("model_final", iteration=self.trainer.iter)


class LastCheckpoint(HookBase):
    """Saves model_last.pth behind every evaluation, in place of the one before, so that an interrupted run goes on from
    there. It goes where a newer checkpoint, as model_final.pth, has come. It belongs behind BestCheckpoint."""

    def __init__(self, checkpointer: DetrCheckpointer, eval_period: int):
        self._checkpointer = checkpointer
        self._eval_period = eval_period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._eval_period == 0 and done < self.trainer.max_iter and not self.trainer.stopped:
            with console_spared():
                self._checkpointer.save(LAST, iteration=self.trainer.iter)

    def after_train(self) -> None:
        last = Path(self._checkpointer.save_dir) / f"{LAST}.pth"
        if comm.is_main_process() and Path(self._checkpointer.get_checkpoint_file()).name != last.name:
            last.unlink(missing_ok=True)


def best_metric(cfg: CfgNode) -> str:
    """The figure by which models of a config are compared: panoptic quality, AP of masks, or of boxes."""
    metric = "segm/AP" if cfg.MODEL.MASK_ON else "bbox/AP"
    metric = "panoptic_seg/PQ" if cfg.MODEL.DETR.PANOPTIC_ON else metric
    return metric if len(cfg.DATASETS.TEST) == 1 else f"{cfg.DATASETS.TEST[0]}/{metric}"
