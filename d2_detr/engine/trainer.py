"""Detectron2's trainer, adapted to DETR."""

from __future__ import annotations

import logging
import weakref
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from d2_detr.checkpoint.checkpointer import DetrCheckpointer
from d2_detr.config.resolving import resolve_config, resolve_schedule
from d2_detr.data.datasets import load_dataset, load_datasets
from d2_detr.data.loaders import build_test_loader, build_train_loader
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.engine.bad_steps import CheckGradients, LastStep, NonFiniteGradientError, save_bad_step
from d2_detr.engine.distributed import broadcast_buffers, parallelize
from d2_detr.engine.hooks.best import BestCheckpoint
from d2_detr.engine.hooks.checkpoints import SaveCheckpoints
from d2_detr.engine.hooks.cores import ShareCores
from d2_detr.engine.hooks.ema import Ema
from d2_detr.engine.hooks.metrics import METRICS_FILE, WriteMetrics
from d2_detr.engine.hooks.progress import ProgressBar, ProgressPrinter, TimeEstimate, evaluation_summary, in_terminal
from d2_detr.engine.optimizer import build_optimizer
from d2_detr.engine.resumable import ResumableTrainer
from d2_detr.evaluation.evaluate import comparison_metrics, evaluate_model, results_file
from d2_detr.structures.dataset import Datasets
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer
from detectron2.engine.hooks import EvalHook, IterationTimer, LRScheduler
from detectron2.evaluation import verify_results
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, JSONWriter, TensorboardXWriter

logger = logging.getLogger(__name__)


class Trainer(ResumableTrainer):
    """Trains DETR, evaluates it with COCO's metrics, and logs to console, JSON and TensorBoard."""

    def __init__(self, cfg: CfgNode, datasets: Datasets | None = None):
        """Build everything from a config.

        Args:
            cfg: what it leaves open (see resolve_config) is computed here.
            datasets: its datasets; None reads them.
        """
        self.datasets = load_datasets(cfg) if datasets is None else datasets
        cfg = resolve_config(self.auto_scale_workers(cfg, comm.get_world_size()), self.datasets)
        super().__init__(cfg)
        self.schedule = resolve_schedule(cfg, self.datasets.num_train_images)
        if cfg.TEST.PRECISE_BN.ENABLED:
            raise InputError("TEST.PRECISE_BN is not supported; set TEST.PRECISE_BN.ENABLED False")
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        # Copied before there are hooks on the model that lead back to the trainer.
        self.ema = Ema(model, cfg.SOLVER.EMA_DECAY) if cfg.SOLVER.EMA_DECAY else None
        model = parallelize(model)
        self.last_step = LastStep(model)
        trainer_class = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = trainer_class(model, self.build_train_loader(cfg), optimizer)
        if not cfg.SOLVER.AMP.ENABLED:  # whose scaler skips steps with gradients that are not finite
            self._trainer.register_hooks([CheckGradients()])
        optimizer.register_step_pre_hook(self.begin_update)
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
        self.max_iter = self.schedule.max_iter
        self.best: BestCheckpoint | None = None
        self._num_bad_steps = 0  # in a row
        self._last_eval_results: dict[str, Any] = {}
        self.register_hooks(self.build_hooks())

    def train(self) -> dict[str, Any]:  # type: ignore[override]
        """Train; see ResumableTrainer.

        Returns:
            In the main process, the evaluation of the best model, or the last one if no best model is kept.
        """
        super().train()
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
            batch = self.last_step.batch
            sizes = ", ".join("{file_name} ({width} x {height})".format_map(record) for record in batch)
            raise InputError(
                f"iteration {self.iter}: the GPU does not have enough memory for {len(batch)} images with sides up to "
                f"{self.cfg.INPUT.MAX_SIZE_TRAIN} pixels: {sizes}. Use a smaller batch (--batch-size, "
                "SOLVER.IMS_PER_BATCH) or smaller images (--image-size, INPUT.MAX_SIZE_TRAIN); nvidia-smi shows what "
                "else uses the GPU"
            ) from error
        self._count_epochs()

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

    def _handle_bad_step(self, error: FloatingPointError) -> None:
        """Skip the step, or raise an error that says what is not finite."""
        description = self.last_step.describe(error)
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
        save_bad_step(path, self.cfg, self.checkpointer.model, self.last_step.batch, key=self.step_key())
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
