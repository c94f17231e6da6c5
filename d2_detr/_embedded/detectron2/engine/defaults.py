"""What most training scripts share: command line, setup, predictor, and a trainer built from a config."""

import argparse
import logging
import os
import sys
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

import detectron2.data.transforms as T
from detectron2._missing import missing, missing_attribute
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.config.unread import warn_unread
from detectron2.data import MetadataCatalog, build_detection_test_loader, build_detection_train_loader
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format, verify_results
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

from . import hooks
from .train_loop import AMPTrainer, HookBase, SimpleTrainer, TrainerBase

__all__ = ["DefaultPredictor", "DefaultTrainer", "create_ddp_model"]
__all__ += ["default_argument_parser", "default_setup", "default_writers"]

logger = logging.getLogger(__name__)


def create_ddp_model(model: nn.Module, *, fp16_compression: bool = False, **kwargs) -> nn.Module:
    """`DistributedDataParallel(model, **kwargs)` on this process's GPU, or, with one process only, `model` itself."""
    if comm.get_world_size() == 1:
        return model
    ddp = DistributedDataParallel(model, **{"device_ids": [comm.get_local_rank()], **kwargs})
    if fp16_compression:
        ddp.register_comm_hook(state=None, hook=fp16_compress_hook)
    return ddp


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """The options that training scripts share; what follows them is KEY VALUE pairs of the config (`opts`)."""
    examples = f"""
examples:
  one machine:   {sys.argv[0]} --config-file cfg.yaml --num-gpus 8 SOLVER.BASE_LR 0.001
  two machines:  the same on each, with --num-machines 2 --machine-rank 0 (and 1) --dist-url tcp://HOST:PORT
"""
    parser = argparse.ArgumentParser(epilog=epilog or examples, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="the YAML file of the config")
    add("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR, if there is one")
    add("--eval-only", action="store_true", help="evaluate, do not train")
    add("--num-gpus", type=int, default=1, help="GPUs on each machine")
    add("--num-machines", type=int, default=1, help="machines in all")
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    # A fixed port per user: a worker left over from an earlier run then shows up as a port in use.
    port = 2**15 + 2**14 + hash(os.getuid() if sys.platform != "win32" else 1) % 2**14
    add("--dist-url", default=f"tcp://127.0.0.1:{port}", help="where the processes meet (torch.distributed)")
    add("opts", default=None, nargs=argparse.REMAINDER, help="changes to the config: KEY VALUE ...")
    return parser


def default_setup(cfg: CfgNode, args: Any) -> None:
    """Start a job: loggers, a record of environment, arguments and config (config.yaml), seeds, precision."""
    rank = comm.get_rank()
    writes = comm.is_main_process() and bool(cfg.OUTPUT_DIR)
    if writes:
        PathManager.mkdirs(cfg.OUTPUT_DIR)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name="fvcore")
    logger = setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank)

    logger.info(f"Rank of current process: {rank}. World size: {comm.get_world_size()}")
    logger.info(f"Environment info:\n{collect_env_info()}")
    logger.info(f"Command line arguments: {args}")
    if config_file := getattr(args, "config_file", ""):
        with PathManager.open(config_file, "r") as f:
            logger.info(f"Contents of {config_file}:\n{f.read()}")
    if writes:
        path = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
        with PathManager.open(path, "w") as f:
            f.write(cfg.dump())
        logger.info(f"Full config, saved to {path}:\n{cfg.dump()}")
    warn_unread(cfg)

    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    if not getattr(args, "eval_only", False):
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if cfg.FLOAT32_PRECISION and torch.cuda.is_available():
        logger.info(f"Precision of float32 products: {cfg.FLOAT32_PRECISION}")
        torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)
        torch.backends.cudnn.allow_tf32 = cfg.FLOAT32_PRECISION != "highest"


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """The console line, metrics.json and TensorBoard events."""
    PathManager.mkdirs(output_dir)
    metrics_file = os.path.join(output_dir, "metrics.json")
    return [CommonMetricPrinter(max_iter), JSONWriter(metrics_file), TensorboardXWriter(output_dir)]


class DefaultPredictor:
    """The config's model with its MODEL.WEIGHTS, for one image at a time, resized as INPUT.*_SIZE_TEST says."""

    def __init__(self, cfg: CfgNode):
        if cfg.INPUT.FORMAT not in ("RGB", "BGR"):
            raise ValueError(f"INPUT.FORMAT is 'RGB' or 'BGR' for a predictor, got {cfg.INPUT.FORMAT!r}")
        self.cfg = cfg.clone()  # a model may change it
        self.model = build_model(self.cfg).eval()
        if cfg.DATASETS.TEST:
            self.metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
        DetectionCheckpointer(self.model).load(cfg.MODEL.WEIGHTS)
        self.aug = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
        self.input_format = cfg.INPUT.FORMAT

    @torch.no_grad()
    def __call__(self, original_image: np.ndarray) -> dict[str, Any]:
        """`original_image` (H, W, 3) in BGR order -> the model's output for it, e.g. {"instances": Instances}."""
        height, width = original_image.shape[:2]
        image = original_image[:, :, ::-1] if self.input_format == "RGB" else original_image
        image = self.aug.get_transform(image).apply_image(image)
        image = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))
        return self.model([{"image": image, "height": height, "width": width}])[0]


def _of_inner_trainer(name: str) -> property:
    return property(lambda self: getattr(self._trainer, name), lambda self, value: setattr(self._trainer, name, value))


class DefaultTrainer(TrainerBase):
    """A training as the config describes it; override a `build_*` method to change a part of it.

    The step itself is done by `_trainer`, a `SimpleTrainer` or, with SOLVER.AMP.ENABLED, an `AMPTrainer`.
    """

    model = _of_inner_trainer("model")
    data_loader = _of_inner_trainer("data_loader")
    optimizer = _of_inner_trainer("optimizer")

    def __init__(self, cfg: CfgNode):
        super().__init__()
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        trainer_class = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer

        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)  # before DistributedDataParallel hides the model's names
        data_loader = self.build_train_loader(cfg)
        self._trainer = trainer_class(create_ddp_model(model, broadcast_buffers=False), data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.cfg = cfg
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the last checkpoint in OUTPUT_DIR; without one, or without `resume`, load MODEL.WEIGHTS."""
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            self.start_iter = self.iter + 1  # the checkpoint holds the last finished iteration

    def build_hooks(self) -> list[HookBase | None]:
        """The order matters: a checkpoint comes before the evaluation that may fail, its metrics before the writers."""
        cfg = self.cfg
        if cfg.TEST.PRECISE_BN.ENABLED:
            raise NotImplementedError(missing("TEST.PRECISE_BN"))

        def evaluate():
            self._last_eval_results = self.test(self.cfg, self.model)
            return self._last_eval_results

        ret = [hooks.IterationTimer(), hooks.LRScheduler(), None]  # None in the place of PreciseBN
        if comm.is_main_process():
            ret.append(hooks.PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD))
        ret.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, evaluate))
        if comm.is_main_process():
            ret.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return ret

    def build_writers(self) -> list[EventWriter]:
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    def train(self) -> dict | None:
        """Train; with TEST.EXPECTED_RESULTS, compare the last evaluation with them and return it."""
        super().train(self.start_iter, self.max_iter)
        if self.cfg.TEST.EXPECTED_RESULTS and comm.is_main_process():
            assert hasattr(self, "_last_eval_results"), "TEST.EXPECTED_RESULTS is set, but nothing was evaluated"
            verify_results(self.cfg, self._last_eval_results)
            return self._last_eval_results

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

    build_optimizer = staticmethod(build_optimizer)
    build_lr_scheduler = staticmethod(build_lr_scheduler)
    build_train_loader = staticmethod(build_detection_train_loader)
    build_test_loader = staticmethod(build_detection_test_loader)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator | None:
        raise NotImplementedError("to evaluate, define build_evaluator() in your trainer or pass evaluators to test()")

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: DatasetEvaluator | list[DatasetEvaluator] | None = None
    ) -> dict[str, Any]:
        """Evaluate on each of DATASETS.TEST: metrics by dataset name, or, for a single dataset, just its metrics.

        `evaluators`, one per dataset, replace those of `build_evaluator`.
        """
        names = cfg.DATASETS.TEST
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        if evaluators is not None:
            assert len(evaluators) == len(names), f"{len(evaluators)} evaluators for {len(names)} datasets: {names}"

        results: dict[str, Any] = {}
        for i, name in enumerate(names):
            data_loader = cls.build_test_loader(cfg, name)
            try:
                evaluator = cls.build_evaluator(cfg, name) if evaluators is None else evaluators[i]
            except NotImplementedError as e:
                logger.warning(f"No evaluation of {name}: {e}")
                results[name] = {}
                continue
            results[name] = inference_on_dataset(model, data_loader, evaluator)
            if comm.is_main_process():
                logger.info(f"Evaluation results for {name} in csv format:")
                print_csv_format(results[name])
        return next(iter(results.values())) if len(results) == 1 else results

    @staticmethod
    def auto_scale_workers(cfg: CfgNode, num_workers: int) -> CfgNode:
        """A config made for SOLVER.REFERENCE_WORLD_SIZE processes (0: any number), adapted to `num_workers` of them.

        The batch per process stays: the batch and the learning rate grow in proportion, and all periods shrink.
        """
        reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
        if reference in (0, num_workers):
            return cfg
        assert cfg.SOLVER.IMS_PER_BATCH % reference == 0, "SOLVER.IMS_PER_BATCH is no multiple of REFERENCE_WORLD_SIZE"
        scale = num_workers / reference
        scaled = cfg.clone()
        scaled.defrost()
        solver, test = scaled.SOLVER, scaled.TEST
        solver.REFERENCE_WORLD_SIZE = num_workers
        solver.IMS_PER_BATCH = round(solver.IMS_PER_BATCH * scale)
        solver.BASE_LR = solver.BASE_LR * scale
        solver.MAX_ITER = round(solver.MAX_ITER / scale)
        solver.WARMUP_ITERS = round(solver.WARMUP_ITERS / scale)
        solver.STEPS = tuple(round(step / scale) for step in solver.STEPS)
        solver.CHECKPOINT_PERIOD = round(solver.CHECKPOINT_PERIOD / scale)
        test.EVAL_PERIOD = round(test.EVAL_PERIOD / scale)
        logger.info(f"The config, scaled to {num_workers} processes:\n{solver}")
        if cfg.is_frozen():
            scaled.freeze()
        return scaled


__getattr__ = missing_attribute(__name__)
