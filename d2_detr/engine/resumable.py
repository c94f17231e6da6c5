"""A training loop that continues exactly where it was interrupted, wherever that was."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from d2_detr.checkpoint.checkpointer import LAST, DetrCheckpointer
from d2_detr.checkpoint.resume import newest_checkpoint
from d2_detr.data.seeding import seed_generators
from d2_detr.engine.bad_steps import is_finite
from d2_detr.engine.distributed import is_lost_connection
from d2_detr.engine.hooks.checkpoints import SaveCheckpoints
from d2_detr.engine.hooks.metrics import new_storage, storage_state
from d2_detr.engine.interruption import Interruption
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm

logger = logging.getLogger(__name__)

FINAL = "model_final"


class ResumableTrainer(DefaultTrainer):
    """Runs the steps of a training, saves and continues it.

    A training that was interrupted anywhere and resumed gives the same weights and metrics as one that was not: the
    random numbers of a step depend on seed, iteration and process, and a checkpoint has the state of everything else.
    Its subclass sets `checkpointer`, `max_iter` and what DefaultTrainer has, and calls `begin_update` before the
    optimizer changes the model.
    """

    checkpointer: DetrCheckpointer

    def __init__(self, cfg: CfgNode):
        """Create a trainer without model and data."""
        # DefaultTrainer's own constructor wraps the model for a CUDA device and reads checkpoints that can run code.
        TrainerBase.__init__(self)
        self.cfg = cfg
        self.seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        self.start_iter = 0
        self.stopped = False  # set by a hook
        self.interruption = Interruption()
        self._complete: int | None = None  # the last step, while nothing that follows has changed the model
        self._data_state: Any = None  # after that step
        self._is_after_step = False  # the hooks after SaveCheckpoints have not been called yet
        self._loaded_metrics: Mapping[str, Any] = {}

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the newest checkpoint in OUTPUT_DIR that is whole.

        Without one, or without `resume`, load MODEL.WEIGHTS and over them MODEL.DETR.FROZEN_WEIGHTS.

        Raises:
            InputError: there are checkpoints, but none is whole; or see DetrCheckpointer.load.
        """
        checkpoint = newest_checkpoint(self.cfg.OUTPUT_DIR) if resume else None
        if checkpoint:
            logger.info("Continuing from %s", checkpoint.path)
            self.checkpointer.load(checkpoint)  # type: ignore[arg-type]  # see DetrCheckpointer
            self.start_iter = self.iter + 1
            return
        if resume:
            logger.warning("No checkpoint in %s yet: starting from the beginning", self.cfg.OUTPUT_DIR)
        self.checkpointer.load(self.cfg.MODEL.WEIGHTS, checkpointables=[])
        if self.cfg.MODEL.DETR.FROZEN_WEIGHTS:
            self.checkpointer.load_frozen(self.cfg.MODEL.DETR.FROZEN_WEIGHTS)

    def train(self) -> None:  # type: ignore[override]  # as DefaultTrainer.train
        """Train until MAX_ITER, or until a hook sets `stopped`, which Detectron2's own loop does not know.

        Raises:
            Interrupted: a signal has asked to stop; what was learned is saved (see Interruption).
            InputError, OSError: an image, a loss, a worker or a file is at fault; what was learned is saved.
        """
        self.iter = self.start_iter
        logger.info("Starting training from iteration %d", self.start_iter)
        with new_storage(self.start_iter, self._loaded_metrics) as self.storage, self.interruption:
            try:
                self.before_train()
                self._finish_resumed_step()
                self._iterate()
            except Exception as error:
                if isinstance(error, InputError | OSError):  # which the command prints as its last line
                    logger.debug("Training failed: %s", error)
                elif is_lost_connection(error):
                    logger.warning("The connection to another process was lost in iteration %d", self.iter)
                    logger.debug("Lost", exc_info=True)
                else:
                    logger.exception("Training failed at iteration %d", self.iter)
                self._save_after_failure(error)
                raise
            finally:
                self.after_train()
        self.checkpointer.save(FINAL, iteration=self.iter - 1)
        self.checkpointer.remove_last()

    def before_step(self) -> None:
        """Seed the random numbers of the step, then call the hooks."""
        seed_generators(*self.step_key())
        super().before_step()

    def after_step(self) -> None:
        """Call the hooks after a step, which can be saved from now on."""
        self._complete_step()
        self._is_after_step = True
        super().after_step()
        self._is_after_step = False

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed training needs beside the weights."""
        return super().state_dict() | {
            "iteration": self._complete,
            "seed": self.seed,
            "data": self._data_state,
            "metrics": storage_state(self.storage, self._complete or 0),
            "is_after_step": self._is_after_step,
            "stopped_at": self.max_iter if self.stopped else None,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        hooks = state_dict.get("hooks", {})
        if "KeepBest" in hooks:  # the hook's name in version 0.1
            hooks["BestCheckpoint"] = hooks.pop("KeepBest")
        super().load_state_dict(state_dict)
        self.seed = state_dict.get("seed", self.seed)
        if self.cfg.SEED >= 0 and self.seed != self.cfg.SEED:
            logger.warning("SEED %d has no effect: the training continues with %d", self.cfg.SEED, self.seed)
        self._is_after_step = state_dict.get("is_after_step", False)
        self._loaded_metrics = state_dict.get("metrics", {})
        self.stopped = state_dict.get("stopped_at") == self.max_iter
        if state_dict.get("data") and hasattr(self.data_loader, "load_state_dict"):
            self.data_loader.load_state_dict(state_dict["data"])
        self._complete_step()

    def begin_update(self, *_: object) -> None:
        """Note that the model is about to change: until the step is complete, it cannot be saved."""
        self._complete = None

    def step_key(self) -> tuple[int, ...]:
        """Return what the random numbers of this step depend on."""
        return self.seed, self.iter, comm.get_rank()

    def _finish_resumed_step(self) -> None:
        """Call the hooks that were to follow the checkpoint from which the training was resumed."""
        if self._is_after_step:
            self.iter = self.storage.iter = self.start_iter - 1
            names = [type(hook) for hook in self._hooks]
            for hook in self._hooks[names.index(SaveCheckpoints) + 1 :]:
                hook.after_step()
            self._is_after_step = False
            self.iter = self.start_iter

    def _iterate(self) -> None:
        while self.iter < self.max_iter and not self.stopped:
            self.before_step()
            self.run_step()
            self.after_step()
            self.iter += 1

    def _complete_step(self) -> None:
        self._complete = self.iter
        if hasattr(self.data_loader, "state_dict"):  # a loader of the user may have none
            self._data_state = self.data_loader.state_dict()

    def _save_after_failure(self, error: Exception) -> None:
        """Save the last complete step, unless it is saved already, or saving is what failed."""
        if self._complete in (None, self.checkpointer.saved_iteration) or isinstance(error, OSError):
            return
        if self._complete >= self.start_iter and is_finite(self.checkpointer.model):
            self.checkpointer.save(LAST, iteration=self._complete)
