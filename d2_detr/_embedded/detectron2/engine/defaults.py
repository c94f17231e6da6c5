"""Command line, setup and trainer of a typical training script."""

import argparse
import logging
import os
import sys
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from detectron2._missing import missing, missing_attribute
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format, verify_results
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

from . import hooks
from .train_loop import AMPTrainer, HookBase, SimpleTrainer, TrainerBase

__all__ = ["DefaultTrainer", "default_argument_parser", "default_setup", "default_writers"]
__getattr__ = missing_attribute(__name__)

logger = logging.getLogger(__name__)


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """Build a parser of common options and of config overrides (`opts`)."""
    parser = argparse.ArgumentParser(epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="YAML file of the config")
    add("--resume", action="store_true", help="resume from the last checkpoint in OUTPUT_DIR, if any")
    add("--eval-only", action="store_true", help="only evaluate")
    add("--num-gpus", type=int, default=1, help="number of GPUs per machine")
    add("--num-machines", type=int, default=1, help="number of machines")
    add("--machine-rank", type=int, default=0, help="rank of this machine, from 0")
    # Fixed for each user, so that a process left over from an earlier run is noticed by its port.
    port = 2**15 + 2**14 + hash(os.getuid() if sys.platform != "win32" else 1) % 2**14
    add("--dist-url", default=f"tcp://127.0.0.1:{port}", help="address where the processes connect (torch.distributed)")
    add("opts", default=None, nargs=argparse.REMAINDER, help="config overrides: KEY VALUE ...")
    return parser


def default_setup(cfg: CfgNode, args: Any) -> None:
    """Set up loggers, seeds and precision; log the setup and write config.yaml."""
    rank = comm.get_rank()
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name="fvcore")
    logger = setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank)
    logger.info(f"Rank of current process: {rank}. World size: {comm.get_world_size()}")
    logger.info(f"Environment info:\n{collect_env_info()}")
    logger.info(f"Command line arguments: {args}")
    if config_file := getattr(args, "config_file", ""):
        with PathManager.open(config_file, "r") as f:
            logger.info(f"Contents of {config_file}:\n{f.read()}")
    if comm.is_main_process():
        path = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
        with PathManager.open(path, "w") as f:
            f.write(cfg.dump())
        logger.info(f"Full config, saved to {path}:\n{cfg.dump()}")
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    if not getattr(args, "eval_only", False):
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if cfg.FLOAT32_PRECISION and torch.cuda.is_available():
        torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)
        torch.backends.cudnn.allow_tf32 = cfg.FLOAT32_PRECISION != "highest"


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Build the writers for the terminal, metrics.json and TensorBoard."""
    PathManager.mkdirs(output_dir)
    metrics_file = os.path.join(output_dir, "metrics.json")
    return [CommonMetricPrinter(max_iter), JSONWriter(metrics_file), TensorboardXWriter(output_dir)]


def _inner_attribute(name: str) -> property:
    return property(lambda self: getattr(self._trainer, name), lambda self, value: setattr(self._trainer, name, value))


class DefaultTrainer(TrainerBase):
    """Train in one process as a config says; subclasses define `build_optimizer`.

    Each step is run by `_trainer`: a `SimpleTrainer` or, with SOLVER.AMP.ENABLED, an `AMPTrainer`.
    """

    model = _inner_attribute("model")
    data_loader = _inner_attribute("data_loader")
    optimizer = _inner_attribute("optimizer")

    def __init__(self, cfg: CfgNode):
        super().__init__()
        if comm.get_world_size() > 1:
            raise NotImplementedError(missing("a DefaultTrainer for several processes"))
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = DefaultTrainer.auto_scale_workers(cfg, num_workers=1)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        trainer_class = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = trainer_class(model, self.build_train_loader(cfg), optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.cfg = cfg
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Resume from the last checkpoint, if any and wanted, or load MODEL.WEIGHTS."""
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            self.start_iter = self.iter + 1  # the checkpoint has the last finished iteration

    def build_hooks(self) -> list[HookBase | None]:
        """Build the hooks, with the evaluation, which may fail, after the checkpoints."""

        def evaluate() -> dict[str, Any]:
            self._last_eval_results = self.test(self.cfg, self.model)
            return self._last_eval_results

        ret: list[HookBase | None] = [hooks.IterationTimer(), hooks.LRScheduler()]
        if comm.is_main_process():
            ret.append(hooks.PeriodicCheckpointer(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD))
        ret.append(hooks.EvalHook(self.cfg.TEST.EVAL_PERIOD, evaluate))
        if comm.is_main_process():
            ret.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return ret

    def build_writers(self) -> list[EventWriter]:
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    def train(self) -> dict | None:  # type: ignore[override]
        """Train; verify and return the last results if there are TEST.EXPECTED_RESULTS."""
        super().train(self.start_iter, self.max_iter)
        if self.cfg.TEST.EXPECTED_RESULTS and comm.is_main_process():
            verify_results(self.cfg, self._last_eval_results)
            return self._last_eval_results
        return None

    def run_step(self) -> None:
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = build_model(cfg)
        logger.info(f"Model:\n{model}")
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        raise NotImplementedError(missing("a default optimizer (define build_optimizer() in your trainer)"))

    build_lr_scheduler = staticmethod(build_lr_scheduler)
    build_train_loader = staticmethod(build_detection_train_loader)
    build_test_loader = staticmethod(build_detection_test_loader)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        raise NotImplementedError("define build_evaluator() in your trainer")

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        """Evaluate on DATASETS.TEST; return results by dataset, or those of the only one."""
        results: dict[str, Any] = {}
        for name in cfg.DATASETS.TEST:
            try:
                evaluator = cls.build_evaluator(cfg, name)
            except NotImplementedError as e:
                logger.warning(f"Dataset '{name}' is not evaluated: {e}")
                results[name] = {}
                continue
            results[name] = inference_on_dataset(model, cls.build_test_loader(cfg, name), evaluator)
            if comm.is_main_process():
                logger.info(f"Evaluation results for {name} in csv format:")
                print_csv_format(results[name])
        return next(iter(results.values())) if len(results) == 1 else results

    @staticmethod
    def auto_scale_workers(cfg: CfgNode, num_workers: int) -> CfgNode:
        """Return `cfg`, which must be made for `num_workers` processes or for any number."""
        if cfg.SOLVER.REFERENCE_WORLD_SIZE not in (0, num_workers):
            raise NotImplementedError(missing("the scaling of a config from SOLVER.REFERENCE_WORLD_SIZE processes"))
        return cfg
