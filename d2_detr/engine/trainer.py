"""Detectron2's trainer, adapted to DETR."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from d2_detr.checkpoint.checkpointer import BEST, LAST, DetrCheckpointer
from d2_detr.data.datasets.classes import dataset_classes, instances_of, model_label_map
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.engine.hooks.checkpoints import BestCheckpoint, LastCheckpoint, best_metric
from d2_detr.engine.hooks.ema import Ema
from d2_detr.engine.hooks.interruption import Interruption
from d2_detr.engine.hooks.progress import (
    FirstEstimate,
    ProgressBar,
    ProgressPrinter,
    WriteEvaluations,
    evaluation_line,
    in_terminal,
)
from d2_detr.engine.logs import console_spared, file_logger
from d2_detr.engine.optimizer import build_optimizer
from d2_detr.engine.parallel import parallel, share_buffers
from d2_detr.evaluation.coco import KnownClassesEvaluator
from d2_detr.evaluation.losses import LossEvaluator
from d2_detr.evaluation.panoptic import PanopticEvaluator
from d2_detr.report.contents import write_report
from d2_detr.utils.errors import InputError
from d2_detr.visualization.curves import read_metrics
from d2_detr.workflows.setup import num_train_pictures

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.engine.hooks import EvalHook, PeriodicWriter
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, verify_results
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage, EventWriter, JSONWriter, TensorboardXWriter

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Train a model of a config; resumable, evaluated with COCO's measures, logged to console, JSON and TensorBoard."""

    def __init__(self, cfg: CfgNode):
        # Not DefaultTrainer's own: its parallel wrapper names a CUDA device, and its checkpointer reads any pickle.
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        # Copied here, where no hook on it leads to the trainer.
        self.ema = Ema(model, cfg.SOLVER.EMA_DECAY) if cfg.SOLVER.EMA_DECAY else None
        model = parallel(model)
        self._losses: Mapping[str, Tensor] = {}
        model.register_forward_hook(self._keep_losses)
        self._trainer = (AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer)(model, loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetrCheckpointer(
            model, cfg.OUTPUT_DIR, label_map=model_label_map(cfg), config=cfg.dump(), trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        with console_spared():
            self.epoch = num_train_pictures(cfg) / cfg.SOLVER.IMS_PER_BATCH  # in iterations
        self.stopped = False
        self._last_eval_results: dict = {}
        self.cfg = cfg
        if self.ema:
            self.checkpointer.weights = self.ema.weights
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the last checkpoint in OUTPUT_DIR; without one, or without `resume`, load MODEL.WEIGHTS, and
        MODEL.DETR.FROZEN_WEIGHTS over it."""
        if resume and not self.checkpointer.has_checkpoint():
            logger.warning("There is no checkpoint in %s yet: the training begins anew", self.cfg.OUTPUT_DIR)
        super().resume_or_load(resume)
        if self.start_iter and self.cfg.SEED >= 0:  # else the augmentations begin with the same numbers again
            seed_all_rng(self.cfg.SEED + self.start_iter + comm.get_rank())
        frozen = self.cfg.MODEL.DETR.FROZEN_WEIGHTS
        if frozen and not (resume and self.checkpointer.has_checkpoint()):
            self.checkpointer.load_frozen(frozen)

    def train(self) -> dict | None:
        """Train until MAX_ITER, or until a hook sets `stopped`, which Detectron2's own loop cannot be told.

        Returns:
            The last evaluation, in the main process.

        Raises:
            KeyboardInterrupt: somebody interrupts it. What was learned is saved (see Interruption).
        """
        self.iter = self.start_iter
        logger.info("Starting training from iteration %d", self.start_iter)
        with EventStorage(self.start_iter) as self.storage, Interruption() as interruption:
            try:
                self.before_train()
                self._iterate(interruption)
            except InputError as error:  # which the console is told as the last line, without a traceback
                file_logger().error("Training failed: %s", error)
                raise
            except Exception:
                logger.exception("Training failed at iteration %d", self.iter)
                raise
            finally:
                self.after_train()
        if comm.is_main_process():
            verify_results(self.cfg, self._last_eval_results)
            if self.cfg.TEST.REPORT:
                try:
                    self._report()
                except Exception:  # hours of training are not lost for it
                    logger.exception("The training is complete, but not its report")
        return self._last_eval_results

    def _iterate(self, interruption: Interruption) -> None:
        complete = self.start_iter - 1
        while self.iter < self.max_iter and not self.stopped and not interruption.wanted:
            try:
                self.before_step()
                self.run_step()
                complete = self.iter
                self.after_step()
            except RuntimeError:
                if not interruption.wanted:
                    raise
                break  # Ctrl-C has ended the workers of a loader, too
            self.iter += 1
        if interruption.wanted and complete < self.max_iter - 1:
            if complete >= self.start_iter:
                self.iter = complete
                with console_spared():
                    self.checkpointer.save(LAST, iteration=complete)
            raise KeyboardInterrupt

    def _report(self) -> None:
        """report.html of the best model, or of the last one where none is kept."""
        cfg, output = self.cfg, Path(self.cfg.OUTPUT_DIR)
        best = next(
            (hook for hook in self._hooks if isinstance(hook, BestCheckpoint) and hook.best_iteration >= 0), None
        )
        if best:
            weights, results, iteration = output / f"{BEST}.pth", best.kept_results, best.best_iteration
        else:
            weights, results, iteration = output / "model_final.pth", results_file(cfg), self.iter - 1
        logger.info("Making the report of %s", weights.name)
        model = self.build_model(cfg)
        with console_spared():
            DetrCheckpointer(model, may_reinitialize=()).load(str(weights))
        metrics = output / "metrics.json"
        quality = best.best if best and cfg.MODEL.DETR.PANOPTIC_ON else panoptic_quality(cfg, self._last_eval_results)
        write_report(
            output / "report.html",
            cfg,
            model.eval(),
            weights,
            results_file=results,
            panoptic_quality=quality,
            metrics=read_metrics(metrics) if metrics.is_file() else (),
            iteration=iteration,
        )

    def build_hooks(self) -> list[HookBase | None]:
        cfg, period = self.cfg, self.cfg.TEST.EVAL_PERIOD
        self._writers: list[EventWriter] = []  # in the main process, which builds them now
        timer, *found = [hook for hook in super().build_hooks() if not isinstance(hook, EvalHook)]
        writer = next((i for i, hook in enumerate(found) if isinstance(hook, PeriodicWriter)), len(found))
        evaluation: list[HookBase] = [EvalHook(period, self._evaluate)]
        behind: list[HookBase] = []
        if period > 0 and cfg.DATASETS.TEST:
            metric, results = best_metric(cfg), results_file(cfg)
            test_set, patience = instances_of(cfg.DATASETS.TEST[0]), cfg.SOLVER.PATIENCE
            evaluation.append(
                BestCheckpoint(
                    self.checkpointer, metric, test_set=test_set, results_file=results, eval_period=period,
                    patience=patience,
                )
            )  # fmt: skip
            evaluation.append(LastCheckpoint(self.checkpointer, period))
            lasting = [writer for writer in self._writers if not isinstance(writer, ProgressPrinter)]
            behind.append(WriteEvaluations(lasting, period))
        if comm.is_main_process():
            behind.append(ProgressBar() if in_terminal() else FirstEstimate())
        return [timer, self.ema, *found[:writer], *evaluation, *found[writer:], *behind]

    def _evaluate(self) -> dict:
        """A line on the console, the tables in the log file."""
        with self.ema.applied() if self.ema else nullcontext(), console_spared():
            share_buffers(self.model)
            self._last_eval_results = self.test(self.cfg, self.model)
        iteration, epoch = self._count()
        if comm.is_main_process():
            several = len(self.cfg.DATASETS.TEST) > 1
            found = self._last_eval_results if several else {"Evaluation": self._last_eval_results}
            for name, of_set in found.items():
                logger.info("%s at iteration %d, epoch %.3g: %s", name, iteration, epoch, evaluation_line(of_set))
        return self._last_eval_results

    def _count(self) -> tuple[int, float]:
        """Iterations and epochs that are done; the latter are logged as "epoch"."""
        done = min(self.iter + 1, self.max_iter)
        self.storage.put_scalar("epoch", done / self.epoch, smoothing_hint=False)
        return done, done / self.epoch

    def run_step(self) -> None:
        """One iteration.

        Raises:
            InputError: a loss is not finite (the message names it, and the parameters are those before the step), or
                the pictures need more memory than the GPU has.
        """
        try:
            super().run_step()
            self._count()
        except FloatingPointError as error:
            bad = [f"{name} is {loss.item()}" for name, loss in self._losses.items() if not torch.isfinite(loss)]
            raise InputError(
                f"iteration {self.iter}: {', '.join(bad) or 'a loss of another process is not finite'}. The parameters "
                "are unchanged by this step. Lower the learning rate (--lr, SOLVER.BASE_LR), or look at the last "
                "pictures' annotations."
            ) from error
        except torch.cuda.OutOfMemoryError as error:
            number = self.cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
            raise InputError(
                f"iteration {self.iter}: the memory of the GPU is not enough for {number} "
                f"pictures with sides up to {self.cfg.INPUT.MAX_SIZE_TRAIN} pixels. Take fewer at once (--batch-size, "
                "SOLVER.IMS_PER_BATCH), or smaller ones (--image-size, INPUT.MAX_SIZE_TRAIN); nvidia-smi tells "
                "whether something else uses the GPU"
            ) from error

    def build_writers(self) -> list[EventWriter]:
        self._writers += [
            ProgressPrinter(self.max_iter, *([file_logger()] if in_terminal() else [])),
            JSONWriter(os.path.join(self.cfg.OUTPUT_DIR, "metrics.json")),
            TensorboardXWriter(self.cfg.OUTPUT_DIR),
        ]
        return self._writers

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        with console_spared():
            return super().build_model(cfg)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        mapper = DetrDatasetMapper(cfg, is_train=True)
        also = f", or in half of the cases {mapper.crop_augmentations}" if mapper.crop_augmentations else ""
        logger.info("Augmentations: %s%s", mapper.augmentations, also)
        with console_spared():
            return build_detection_train_loader(cfg, mapper=mapper)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        mapper = DetrDatasetMapper(cfg, is_train=False, with_truth=True)  # for the losses
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """COCO's AP of boxes and masks, panoptic quality, as the config has it, and the losses."""
        output_dir = str(inference_folder(cfg, dataset_name))
        instances = instances_of(dataset_name)
        dataset_classes(instances)  # sees that its metadata are there
        tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
        evaluators: list[DatasetEvaluator] = [
            KnownClassesEvaluator(instances, tasks, output_dir=output_dir),
            LossEvaluator(cfg.MODEL.DETR.NUM_OBJECT_QUERIES, cfg.MODEL.DETR.NO_OBJECT_WEIGHT),
        ]
        if cfg.MODEL.DETR.PANOPTIC_ON:
            evaluators.append(PanopticEvaluator(dataset_name, output_dir))
        return DatasetEvaluators(evaluators)

    def _keep_losses(self, model: nn.Module, inputs: object, outputs: object) -> None:
        if model.training:
            self._losses = outputs


def inference_folder(cfg: CfgNode, dataset_name: str) -> Path:
    """Where the evaluation of a dataset writes."""
    folder = Path(cfg.OUTPUT_DIR) / "inference"
    return folder / dataset_name if len(cfg.DATASETS.TEST) > 1 else folder


def results_file(cfg: CfgNode) -> Path:
    """The predictions for the first test set, if there is one, in COCO's results format, as COCOEvaluator names it."""
    return inference_folder(cfg, next(iter(cfg.DATASETS.TEST), "")) / "coco_instances_results.json"


def panoptic_quality(cfg: CfgNode, results: Mapping) -> float | None:
    """Of the first test set, in what `Trainer.test` gives; None where it was not measured."""
    of_first = results.get(cfg.DATASETS.TEST[0], {}) if len(cfg.DATASETS.TEST) > 1 else results
    return of_first.get("panoptic_seg", {}).get("PQ")
