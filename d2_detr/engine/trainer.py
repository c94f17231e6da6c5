"""Detectron2's trainer, adapted to DETR."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d2_detr.checkpoint.checkpointer import LAST, DetrCheckpointer
from d2_detr.checkpoint.resume import newest_checkpoint
from d2_detr.config.resolving import resolve_config, resolve_schedule
from d2_detr.data.datasets import load_dataset, load_datasets
from d2_detr.data.loaders import build_test_loader, build_train_loader
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.data.seeding import seed_generators
from d2_detr.engine.bad_steps import CheckGradients, NonFiniteGradientError, describe, is_finite, save_bad_step
from d2_detr.engine.distributed import broadcast_buffers, is_lost_connection, parallelize
from d2_detr.engine.hooks.best import BestCheckpoint
from d2_detr.engine.hooks.checkpoints import SaveCheckpoints
from d2_detr.engine.hooks.cores import ShareCores
from d2_detr.engine.hooks.ema import Ema
from d2_detr.engine.hooks.metrics import METRICS_FILE, WriteMetrics, new_storage, storage_state
from d2_detr.engine.hooks.progress import ProgressBar, ProgressPrinter, TimeEstimate, evaluation_summary, in_terminal
from d2_detr.engine.interruption import Interruption
from d2_detr.engine.optimizer import build_optimizer
from d2_detr.evaluation.evaluate import comparison_metrics, evaluate_model, results_file
from d2_detr.structures.dataset import Datasets
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.engine.hooks import EvalHook, IterationTimer, LRScheduler
from detectron2.evaluation import verify_results
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, JSONWriter, TensorboardXWriter

logger = logging.getLogger(__name__)

FINAL = "model_final"


class Trainer(DefaultTrainer):
    """Trains a model, evaluates it with COCO's metrics, and logs to console, JSON and TensorBoard.

    A training that was interrupted anywhere and resumed gives the same weights and metrics as one that was not: the
    random numbers of a step depend on seed, iteration and process, and a checkpoint has the state of everything else.
    """

    def __init__(self, cfg: CfgNode, datasets: Datasets | None = None):
        """Build everything from a config.

        Args:
            cfg: what it leaves open (see resolve_config) is computed here.
            datasets: its datasets; None reads them.
        """
        # DefaultTrainer's own constructor wraps the model for a CUDA device and reads checkpoints that can run code.
        TrainerBase.__init__(self)
        self.datasets = load_datasets(cfg) if datasets is None else datasets
        cfg = self.cfg = resolve_config(self.auto_scale_workers(cfg, comm.get_world_size()), self.datasets)
        self.schedule = resolve_schedule(cfg, self.datasets.num_train_images)
        if cfg.TEST.PRECISE_BN.ENABLED:
            raise InputError("TEST.PRECISE_BN is not supported; set TEST.PRECISE_BN.ENABLED False")
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        # Copied before there are hooks on the model that lead back to the trainer.
        self.ema = Ema(model, cfg.SOLVER.EMA_DECAY) if cfg.SOLVER.EMA_DECAY else None
        model = parallelize(model)
        self.seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        self._batch: Sequence[dict[str, Any]] = ()
        self._losses: Mapping[str, Tensor] = {}
        model.register_forward_pre_hook(self._keep_batch)
        model.register_forward_hook(self._keep_losses)
        trainer_class = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = trainer_class(model, self.build_train_loader(cfg), optimizer)
        if not cfg.SOLVER.AMP.ENABLED:  # whose scaler skips steps with gradients that are not finite
            self._trainer.register_hooks([CheckGradients()])
        optimizer.register_step_pre_hook(self._begin_update)
        self.scheduler = self._build_scheduler(optimizer)
        self.checkpointer = DetrCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            label_map=self.datasets.train[0].label_map.extended(cfg.MODEL.DETR.NUM_CLASSES),
            config=cfg.dump(),
            num_kept=cfg.SOLVER.CHECKPOINTS_KEPT,
            trainer=weakref.proxy(self),
        )
        if self.ema:
            self.checkpointer.weights = self.ema.weights
        self.start_iter, self.max_iter = 0, self.schedule.max_iter
        self.stopped = False  # set by a hook
        self.best: BestCheckpoint | None = None
        self.interruption = Interruption()
        self._num_bad_steps = 0  # in a row
        self._complete: int | None = None  # the last step, while nothing that follows has changed the model
        self._data_state: Any = None
        self._is_after_step = False  # the hooks after SaveCheckpoints have not been called yet
        self._loaded_metrics: Mapping[str, Any] = {}
        self._last_eval_results: dict[str, Any] = {}
        self.register_hooks(self.build_hooks())

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

    def train(self) -> dict[str, Any]:  # type: ignore[override]  # as DefaultTrainer.train
        """Train until MAX_ITER, or until a hook sets `stopped`, which Detectron2's own loop does not know.

        Returns:
            In the main process, the evaluation of the best model, or the last one if no best model is kept.

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
        if comm.is_main_process():
            verify_results(self.cfg, self._last_eval_results)
        return (self.best and self.best.best_evaluation) or self._last_eval_results

    def build_hooks(self) -> list[HookBase | None]:
        """List the hooks in the order in which they are called.

        First those that are part of a step, then the checkpoint, then evaluations and what depends on them.
        """
        cfg, period, is_main = self.cfg, self.schedule.eval_period, comm.is_main_process()
        hooks: list[HookBase | None] = [IterationTimer(), self.ema, LRScheduler()]
        if is_main:
            hooks.append(ProgressBar() if in_terminal() else TimeEstimate())
        if cfg.MODEL.DEVICE == "cpu" and not cfg.DETERMINISTIC:
            hooks.append(ShareCores())
        hooks += [
            SaveCheckpoints(
                self.checkpointer,
                self.interruption,
                period=cfg.SOLVER.CHECKPOINT_PERIOD,
                minutes=cfg.SOLVER.CHECKPOINT_MINUTES,
                eval_period=period,
            ),
            EvalHook(period, self._evaluate),
        ]
        if period and self.datasets.test:
            self.best = BestCheckpoint(
                self.checkpointer,
                comparison_metrics(cfg),
                dataset=self.datasets.test[0].things,
                results_file=results_file(cfg),
                evaluation=lambda: self._last_eval_results,
                eval_period=period,
                patience=cfg.SOLVER.PATIENCE,
            )
        self.metrics = WriteMetrics(cfg.OUTPUT_DIR, period=20, eval_period=period if self.datasets.test else 0)
        return [*hooks, self.best, self.metrics]

    def build_writers(self) -> list[EventWriter]:
        """Build the writers of metrics: to the log (in a terminal only to its file), to JSON and to TensorBoard."""
        folder = self.cfg.OUTPUT_DIR
        Path(folder).mkdir(parents=True, exist_ok=True)
        return [
            ProgressPrinter(self.max_iter, logging.DEBUG if in_terminal() else logging.INFO),
            JSONWriter(str(Path(folder) / METRICS_FILE)),
            # TensorBoard hides what a run that was killed has written beyond its checkpoint.
            TensorboardXWriter(folder, purge_step=self.metrics.last_written + 1 or None),
        ]

    def before_step(self) -> None:
        """Seed the random numbers of the step, then call the hooks."""
        seed_generators(*self._step_key())
        super().before_step()

    def after_step(self) -> None:
        """Call the hooks after a step, which can be saved from now on."""
        self._complete_step()
        self._is_after_step = True
        super().after_step()
        self._is_after_step = False

    def run_step(self) -> None:
        """Run one iteration.

        Raises:
            InputError: a loss or gradient is not finite (the message names it, and the parameters are those before the
                step), or the GPU does not have enough memory.
        """
        try:
            super().run_step()
            self._num_bad_steps = 0
        except FloatingPointError as error:
            self._handle_bad_step(error)
        except torch.cuda.OutOfMemoryError as error:
            sizes = ", ".join("{file_name} ({width} x {height})".format_map(record) for record in self._batch)
            raise InputError(
                f"iteration {self.iter}: the GPU does not have enough memory for {len(self._batch)} images with sides "
                f"up to {self.cfg.INPUT.MAX_SIZE_TRAIN} pixels: {sizes}. Use a smaller batch (--batch-size, "
                "SOLVER.IMS_PER_BATCH) or smaller images (--image-size, INPUT.MAX_SIZE_TRAIN); nvidia-smi shows what "
                "else uses the GPU"
            ) from error
        self._count_epochs()

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

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: None = None) -> dict[str, Any]:
        """Evaluate a model on the datasets of DATASETS.TEST, like Detectron2's trainer."""
        return evaluate_model(cfg, model, load_datasets(cfg, evaluation_only=True).test)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Build the optimizer; may be overridden."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Build the loader of one of the datasets, for scripts that evaluate it themselves."""
        dataset = load_dataset(dataset_name, cfg.DATASETS.CUSTOM)  # nosec B615  # of this project, no download
        return build_test_loader(cfg, dataset)

    def build_train_loader(self, cfg: CfgNode) -> Any:
        """Build the loader of the training images; may be overridden, also by a class method as in Detectron2."""
        mapper = DetrDatasetMapper(cfg, is_train=True)
        alternative = f", or in half of the cases {mapper.crop_augmentations}" if mapper.crop_augmentations else ""
        logger.info("Augmentations: %s%s", mapper.augmentations, alternative)
        return build_train_loader(cfg, self.datasets.train_records, mapper, self.seed)

    def _build_scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = self.schedule.max_iter, self.schedule.steps
        return build_lr_scheduler(cfg, optimizer)

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

    def _begin_update(self, *_: object) -> None:
        self._complete = None  # until the hooks of the step have been called

    def _save_after_failure(self, error: Exception) -> None:
        """Save the last complete step, unless it is saved already, or saving is what failed."""
        if self._complete in (None, self.checkpointer.saved_iteration) or isinstance(error, OSError):
            return
        if self._complete >= self.start_iter and is_finite(self.checkpointer.model):
            self.checkpointer.save(LAST, iteration=self._complete)

    def _step_key(self) -> tuple[int, ...]:
        return self.seed, self.iter, comm.get_rank()

    def _handle_bad_step(self, error: FloatingPointError) -> None:
        """Skip the step, or raise an error that says what is not finite."""
        description = describe(self._losses, self._batch, error)
        self._num_bad_steps += 1
        maximum = self.cfg.SOLVER.MAX_BAD_STEPS
        # Other errors are those of this process alone: the others do not skip the step.
        if self._num_bad_steps <= maximum and isinstance(error, NonFiniteGradientError):
            logger.warning(
                "iteration %d: %s. The step is skipped: %d of at most %d in a row (SOLVER.MAX_BAD_STEPS)",
                self.iter, description, self._num_bad_steps, maximum,
            )  # fmt: skip
            return
        path = Path(self.cfg.OUTPUT_DIR) / f"bad_step_{self.iter:07d}_{comm.get_rank()}.pth"
        save_bad_step(path, self.cfg, self.checkpointer.model, self._batch, key=self._step_key())
        raise InputError(
            f"iteration {self.iter}: {description}. This step did not change the parameters. Lower the learning rate "
            f"(--lr, SOLVER.BASE_LR), or check the annotations of these images. {path} has what "
            "d2_detr.engine.bad_steps.replay needs to repeat the step"
        ) from error

    def _evaluate(self) -> dict[str, Any]:
        """Evaluate the model, or its moving average: a line in the console, the tables in the log file."""
        # The state before it is saved, from which a resumed training evaluates again.
        with self.interruption.immediately(), self.ema.applied() if self.ema else nullcontext():
            broadcast_buffers(self.model)
            self._last_eval_results = self._measure()
        iteration, epoch = self._count_epochs()
        if comm.is_main_process():
            several = len(self.datasets.test) > 1
            by_dataset = self._last_eval_results if several else {"Evaluation": self._last_eval_results}
            for name, results in by_dataset.items():
                logger.info("%s at iteration %d, epoch %.3g: %s", name, iteration, epoch, evaluation_summary(results))
        return self._last_eval_results

    def _measure(self) -> dict[str, Any]:
        return evaluate_model(self.cfg, self.model, self.datasets.test, quiet=True)

    def _count_epochs(self) -> tuple[int, float]:
        """Return how many iterations and epochs are complete; the latter are logged as "epoch"."""
        done = min(self.iter + 1, self.max_iter)
        epoch = done / self.schedule.iters_per_epoch
        self.storage.put_scalar("epoch", epoch, smoothing_hint=False)
        return done, epoch

    def _keep_batch(self, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        if model.training:
            self._batch = inputs[0]

    def _keep_losses(self, model: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        if model.training:
            self._losses = outputs
