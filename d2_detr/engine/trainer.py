"""Detectron2's trainer, adapted to DETR."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from d2_detr.checkpoint.checkpointer import LAST, DetrCheckpointer
from d2_detr.config.resolving import resolve_config, resolve_schedule
from d2_detr.data.datasets import load_dataset, load_datasets
from d2_detr.data.loaders import build_test_loader, build_train_loader
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.engine.distributed import broadcast_buffers, parallelize
from d2_detr.engine.hooks.checkpoints import BestCheckpoint, LastCheckpoint
from d2_detr.engine.hooks.cores import ShareCores
from d2_detr.engine.hooks.ema import Ema
from d2_detr.engine.hooks.interruption import Interruption
from d2_detr.engine.hooks.progress import (
    ProgressBar,
    ProgressPrinter,
    TimeEstimate,
    WriteEvaluations,
    evaluation_summary,
    in_terminal,
)
from d2_detr.engine.optimizer import build_optimizer
from d2_detr.evaluation.evaluate import comparison_metrics, evaluate_model, results_file
from d2_detr.structures.dataset import Datasets
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.engine.hooks import EvalHook, IterationTimer, LRScheduler, PeriodicCheckpointer, PeriodicWriter
from detectron2.evaluation import verify_results
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage, EventWriter, JSONWriter, TensorboardXWriter

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Trains a model: resumable, evaluated with COCO's metrics, logged to console, JSON and TensorBoard."""

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
        self._losses: Mapping[str, Tensor] = {}
        model.register_forward_hook(self._keep_losses)
        trainer_class = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = trainer_class(model, self.build_train_loader(cfg), optimizer)
        self.scheduler = self._build_scheduler(optimizer)
        self.checkpointer = DetrCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            label_map=self.datasets.train[0].label_map.extended(cfg.MODEL.DETR.NUM_CLASSES),
            config=cfg.dump(),
            trainer=weakref.proxy(self),
        )
        if self.ema:
            self.checkpointer.weights = self.ema.weights
        self.start_iter, self.max_iter = 0, self.schedule.max_iter
        self.stopped = False  # set by a hook
        self.best: BestCheckpoint | None = None
        self._last_eval_results: dict[str, Any] = {}
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the last checkpoint in OUTPUT_DIR.

        Without one, or without `resume`, load MODEL.WEIGHTS and over them MODEL.DETR.FROZEN_WEIGHTS.
        """
        if resume and not self.checkpointer.has_checkpoint():
            logger.warning("No checkpoint in %s yet: starting from the beginning", self.cfg.OUTPUT_DIR)
            resume = False
        super().resume_or_load(resume)
        if self.start_iter and self.cfg.SEED >= 0:  # else the augmentations would begin with the same numbers again
            seed_all_rng(self.cfg.SEED + self.start_iter + comm.get_rank())
        if self.cfg.MODEL.DETR.FROZEN_WEIGHTS and not resume:
            self.checkpointer.load_frozen(self.cfg.MODEL.DETR.FROZEN_WEIGHTS)

    def train(self) -> dict[str, Any]:  # type: ignore[override]  # as DefaultTrainer.train
        """Train until MAX_ITER, or until a hook sets `stopped`, which Detectron2's own loop does not know.

        Returns:
            In the main process, the evaluation of the best model, or the last one if no best model is kept.

        Raises:
            KeyboardInterrupt: interrupted by the user; what was learned is saved (see Interruption).
        """
        self.iter = self.start_iter
        logger.info("Starting training from iteration %d", self.start_iter)
        with EventStorage(self.start_iter) as self.storage, Interruption() as interruption:
            try:
                self.before_train()
                self._iterate(interruption)
            except InputError as error:  # which the command prints as its last line
                logger.debug("Training failed: %s", error)
                raise
            except Exception:
                logger.exception("Training failed at iteration %d", self.iter)
                raise
            finally:
                self.after_train()
        if comm.is_main_process():
            verify_results(self.cfg, self._last_eval_results)
        return (self.best and self.best.best_evaluation) or self._last_eval_results

    def build_hooks(self) -> list[HookBase | None]:
        """List the hooks in the order in which they are called: evaluations before what depends on them."""
        cfg, period, is_main = self.cfg, self.schedule.eval_period, comm.is_main_process()
        hooks: list[HookBase | None] = [IterationTimer(), self.ema, LRScheduler()]
        if is_main:
            hooks.append(PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD))
        hooks.append(EvalHook(period, self._evaluate))
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
            hooks += [self.best, LastCheckpoint(self.checkpointer, period)]
        if is_main:
            printer, *writers = self.build_writers()
            hooks.append(PeriodicWriter([printer, *writers], period=20))
            hooks.append(WriteEvaluations(writers, period) if period and self.datasets.test else None)
            hooks.append(ProgressBar() if in_terminal() else TimeEstimate())
        if cfg.MODEL.DEVICE == "cpu":
            hooks.append(ShareCores())
        return hooks

    def build_writers(self) -> list[EventWriter]:
        """Build the writers of metrics: to the log (in a terminal only to its file), to JSON and to TensorBoard."""
        return [
            ProgressPrinter(self.max_iter, logging.DEBUG if in_terminal() else logging.INFO),
            JSONWriter(os.path.join(self.cfg.OUTPUT_DIR, "metrics.json")),
            TensorboardXWriter(self.cfg.OUTPUT_DIR),
        ]

    def run_step(self) -> None:
        """Run one iteration.

        Raises:
            InputError: a loss is not finite (the message names it, and the parameters are those before the step), or
                the GPU does not have enough memory.
        """
        try:
            super().run_step()
            self._count_epochs()
        except FloatingPointError as error:
            bad = [f"{name} is {loss.item()}" for name, loss in self._losses.items() if not torch.isfinite(loss)]
            raise InputError(
                f"iteration {self.iter}: {', '.join(bad) or 'a loss of another process is not finite'}. This step did "
                "not change the parameters. Lower the learning rate (--lr, SOLVER.BASE_LR), or check the annotations "
                "of the last images."
            ) from error
        except torch.cuda.OutOfMemoryError as error:
            num_images = self.cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
            raise InputError(
                f"iteration {self.iter}: the GPU does not have enough memory for {num_images} images with sides up to "
                f"{self.cfg.INPUT.MAX_SIZE_TRAIN} pixels. Use a smaller batch (--batch-size, SOLVER.IMS_PER_BATCH) or "
                "smaller images (--image-size, INPUT.MAX_SIZE_TRAIN); nvidia-smi shows what else uses the GPU"
            ) from error

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        hooks = state_dict.get("hooks", {})
        if "KeepBest" in hooks:  # the hook's name in version 0.1
            hooks["BestCheckpoint"] = hooks.pop("KeepBest")
        super().load_state_dict(state_dict)

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
        return build_test_loader(cfg, load_dataset(dataset_name, cfg.DATASETS.CUSTOM))

    def build_train_loader(self, cfg: CfgNode) -> Any:
        """Build the loader of the training images; may be overridden, also by a class method as in Detectron2."""
        mapper = DetrDatasetMapper(cfg, is_train=True)
        alternative = f", or in half of the cases {mapper.crop_augmentations}" if mapper.crop_augmentations else ""
        logger.info("Augmentations: %s%s", mapper.augmentations, alternative)
        return build_train_loader(cfg, self.datasets.train_records, mapper)

    def _build_scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = self.schedule.max_iter, self.schedule.steps
        return build_lr_scheduler(cfg, optimizer)

    def _iterate(self, interruption: Interruption) -> None:
        complete = self.start_iter - 1
        while self.iter < self.max_iter and not self.stopped and not interruption.requested:
            try:
                self.before_step()
                self.run_step()
                complete = self.iter
                self.after_step()
            except RuntimeError:
                if not interruption.requested:
                    raise
                break  # Ctrl-C has also ended the workers of a loader
            self.iter += 1
        if interruption.requested and complete < self.max_iter - 1:
            if complete >= self.start_iter:
                self.iter = complete
                self.checkpointer.save(LAST, iteration=complete)
            raise KeyboardInterrupt

    def _evaluate(self) -> dict[str, Any]:
        """Evaluate the model, or its moving average: a line in the console, the tables in the log file."""
        with self.ema.applied() if self.ema else nullcontext():
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

    def _keep_losses(self, model: nn.Module, inputs: object, outputs: Any) -> None:
        if model.training:
            self._losses = outputs
