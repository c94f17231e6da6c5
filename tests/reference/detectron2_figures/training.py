"""Events, checkpoints, hooks and short trainings."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn

from d2_detr.config import load_config
from d2_detr.engine.trainer import Trainer
from d2_detr.workflows.prepare_run import prepare_run
from tests.reference.detectron2_figures.common import (
    logged,
    metrics_lines,
    names_below,
    refusal,
    temporary_folder,
    without_times,
)
from tests.reference.detectron2_figures.solver import STEPS, solver_config
from tests.shapes import draw_shapes

from detectron2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from detectron2.engine import SimpleTrainer, hooks
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.solver import build_lr_scheduler
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import CommonMetricPrinter, EventStorage, JSONWriter


def events() -> dict:
    """Store, write and print scalars over ten iterations, some of them seldom."""
    with temporary_folder() as folder, EventStorage(30) as storage, logged() as messages:
        writer = JSONWriter(str(folder / "metrics.json"), window_size=4)
        printer = CommonMetricPrinter(50, window_size=4)
        for i in range(10):
            storage.put_scalars(total_loss=10.0 / (i + 1), loss_ce=i % 4, time=0.5 + i % 3, data_time=0.25 * (i % 2))
            storage.put_scalar("lr", 0.1 / (i + 1), smoothing_hint=False)
            if i % 4 == 1:
                storage.put_scalar("[metric]AP", i * 10, smoothing_hint=False)
            if i % 3 == 2:
                writer.write()
                printer.write()
            storage.step()
        writer.close()
        return {
            "iteration": storage.iter, "latest": storage.latest(), "smoothed": storage.latest_with_smoothing_hint(5),
            "samples": {name: storage.count_samples(name, 5) for name in storage.histories()},
            "average": storage.history("loss_ce").avg(3), "messages": [re.sub("max_mem.*", "", m) for m in messages],
            "lines": metrics_lines(folder), "keys in order": [list(line) for line in metrics_lines(folder)],
            "other hint": refusal(storage.put_scalar, "lr", 1.0), "unknown": refusal(storage.history, "unheard"),
        }  # fmt: skip


class Weight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, data: float) -> dict:
        return {"loss_a": self.weight * data, "loss_b": 2 * self.weight**2}


def checkpoints() -> dict:
    """Save checkpoints over six iterations and load them."""
    model = Weight()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    with temporary_folder() as folder:
        checkpointer = DetectionCheckpointer(model, str(folder), optimizer=optimizer)
        figures = {"before": [checkpointer.has_checkpoint(), checkpointer.get_checkpoint_file()]}
        periodic = PeriodicCheckpointer(checkpointer, 2, max_iter=6, max_to_keep=2)
        for iteration in range(6):
            sum(model(1.0).values()).backward()
            optimizer.step()
            periodic.step(iteration, note=f"number {iteration}")
        names = {path.name: path for path in sorted(folder.iterdir())}
        contents = {name: torch.load(path, weights_only=True) for name, path in names.items() if ".pth" in name}
        for content in contents.values():
            content["optimizer"] = {"keys": sorted(content["optimizer"]), "state": content["optimizer"]["state"]}
        figures |= {"last_checkpoint": names["last_checkpoint"].read_text(), "contents": contents, "loaded": {}}
        for name in ("model_0000003.pth", "model_final.pth"):
            figures["loaded"][name] = checkpointer.load(str(folder / name)), model.weight.item()
        last = [Path(checkpointer.get_checkpoint_file()).name, checkpointer.has_checkpoint()]
        resumed = [checkpointer.resume_or_load("", resume=resume) for resume in (True, False)]
        return figures | {
            "last": last, "resumed": resumed, "empty": checkpointer.load(""),
            "missing": refusal(checkpointer.load, str(folder / "nothing.pth")),
        }  # fmt: skip


class Saved:
    """A checkpointer that only records what it is asked to save."""

    def __init__(self) -> None:
        self.names: list[tuple[str, int]] = []
        self.path_manager = None

    def save(self, name: str, iteration: int) -> None:
        self.names.append((name, iteration))


def training_loop() -> dict:
    return {f"period {period}": seven_iterations(period) for period in (0, 1, 2, 3, 7, 10)}


def seven_iterations(period: int) -> dict:
    """Train from iteration 3 on, with all hooks and losses stored every second one."""
    model, saved, best, evaluated = Weight(), Saved(), Saved(), []
    values = itertools.cycle([math.nan, 3.0, math.nan, 4.0, 2.0, 5.0, 5.0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = SimpleTrainer(model, itertools.cycle([1.0, 2.0, -1.0]), optimizer, gather_metric_period=2)
    schedule = build_lr_scheduler(solver_config(**STEPS), optimizer)

    def evaluate() -> dict:
        evaluated.append(trainer.storage.iter)
        return {"bbox": {"AP": next(values)}}

    with temporary_folder() as folder:
        all_hooks = [
            hooks.IterationTimer(),
            hooks.LRScheduler(optimizer, schedule),
            hooks.PeriodicCheckpointer(saved, period or 100),
            hooks.EvalHook(period, evaluate),
            hooks.BestCheckpointer(period, best, "bbox/AP"),
            hooks.PeriodicWriter([JSONWriter(str(folder / "metrics.json"))], period or 20),
        ]
        trainer.register_hooks(all_hooks)
        trainer.train(3, 10)
        lines = [without_times(line) for line in metrics_lines(folder)]
    return {
        "evaluated": evaluated, "saved": saved.names, "best": best.names, "metrics.json": lines,
        "losses": [loss for loss, _ in trainer.storage.history("total_loss").values()], "weight": model.weight.item(),
        "timed": [i for _, i in trainer.storage.history("time").values()], "state": trainer.state_dict()["hooks"],
        "stored": list(trainer.storage.histories()), "iterations": [trainer.iter, trainer.storage.iter],
    }  # fmt: skip


@META_ARCH_REGISTRY.register()
class FiguresMeanColour(nn.Module):
    """A model that predicts one object per image from its mean color.

    It is so small that the results are the same on every processor.
    Its losses depend on the order of the images, the sampled augmentations and the schedule.
    """

    def __init__(self, cfg: Any):
        super().__init__()
        self.boxes, self.classes = nn.Linear(3, 4), nn.Linear(3, cfg.MODEL.DETR.NUM_CLASSES)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.linspace(-0.5, 0.5, parameter.numel()).reshape(parameter.shape))

    def forward(self, batch: list[dict]) -> Any:
        colours = torch.stack([image["image"].float().mean((1, 2)) / 255 for image in batch])
        boxes, logits = self.boxes(colours), self.classes(colours)
        if not self.training:
            return [{"instances": self._found(*found)} for found in zip(batch, boxes, logits, strict=True)]
        objects = [image["instances"] for image in batch]
        first = torch.stack([o.gt_boxes.tensor[0] / torch.tensor([*o.image_size] * 2) for o in objects])
        classes = torch.stack([o.gt_classes[0] for o in objects])
        return {"loss_boxes": (boxes - first).pow(2).mean(), "loss_classes": F.cross_entropy(logits, classes)}

    def _found(self, image: dict, box: torch.Tensor, logits: torch.Tensor) -> Instances:
        score, category = logits.softmax(0).max(0, keepdim=True)
        size_hw = image["height"], image["width"]
        return Instances(size_hw, pred_boxes=Boxes(box[None] * size_hw[0]), scores=score, pred_classes=category)


DETR_OPTIONS = (
    "MODEL.DETR.AUTOCAST off MODEL.DETR.HIDDEN_DIM 32 MODEL.DETR.NHEADS 4 MODEL.DETR.DIM_FEEDFORWARD 32 "
    "MODEL.DETR.ENC_LAYERS 1 MODEL.DETR.DEC_LAYERS 2"
)
TRAIN_OPTIONS = (
    "MODEL.DEVICE cpu INPUT.MIN_SIZE_TRAIN (48,64,80) INPUT.MIN_SIZE_TEST 64 SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 4 "
    "SOLVER.STEPS (3,) SOLVER.WARMUP_ITERS 2 SOLVER.WARMUP_FACTOR 0.5 SOLVER.CHECKPOINT_PERIOD 2 TEST.EVAL_PERIOD 3 "
    "DATALOADER.NUM_WORKERS 0 TEST.REPORT False SEED 3"
)
SGD_OPTIONS = "SOLVER.OPTIMIZER SGD SOLVER.BASE_LR 0.1 MODEL.META_ARCHITECTURE FiguresMeanColour"


@contextmanager
def tiny_training(options: str) -> Iterator[tuple[Trainer, Path]]:
    """Train for four iterations like tools/train_net.py; yield trainer and folder."""
    with temporary_folder() as folder, mock.patch.dict(os.environ, {"D2_DETR_CACHE": str(folder / "cache")}):
        opts = f"{TRAIN_OPTIONS} {options} OUTPUT_DIR {folder / 'run'}".split()
        cfg = load_config("detr_compact_balloon.yaml", opts, draw_shapes(folder / "coco"))
        trainer = Trainer(*prepare_run(cfg))
        trainer.resume_or_load(resume=False)
        trainer.train()
        yield trainer, folder / "run"


def files_of_a_training() -> dict:
    """Return the names of the files of a training of Detr, and the names in them."""
    with tiny_training(DETR_OPTIONS) as (used, folder):
        checkpoint = torch.load(folder / "model_final.pth", weights_only=True)
        trainer = checkpoint["trainer"]
        return {
            "names": names_below(folder), "last_checkpoint": (folder / "last_checkpoint").read_text(),
            "metrics.json": [list(line) for line in metrics_lines(folder)], "TensorBoard": tensorboard_tags(folder),
            "checkpoint": sorted(checkpoint), "trainer": sorted(trainer),
            "states of hooks": {name: sorted(state) for name, state in trainer["hooks"].items()},
            "hooks in order": [type(hook).__name__ for hook in used._hooks],
            "inner trainer": sorted(trainer["_trainer"]), "optimizer": sorted(trainer["_trainer"]["optimizer"]),
            "iterations": [checkpoint["iteration"], trainer["iteration"], trainer["_trainer"]["iteration"]],
            "rates": [group["initial_lr"] for group in trainer["_trainer"]["optimizer"]["param_groups"]],
        }  # fmt: skip


def numbers_of_a_training() -> dict:
    """Return losses, rates, parameters and optimizer states of FiguresMeanColour."""
    with tiny_training(SGD_OPTIONS) as (_, folder):
        figures = {"metrics.json": [without_times(line) for line in metrics_lines(folder)]}
        for name in ("model_0000001.pth", "model_0000003.pth", "model_final.pth"):
            checkpoint = torch.load(folder / name, weights_only=True)
            optimizer = checkpoint["trainer"]["_trainer"]["optimizer"]
            figures[name] = {
                "model": checkpoint["model"], "state": optimizer["state"], "hooks": checkpoint["trainer"]["hooks"],
                "rates": [[group["lr"], group["initial_lr"]] for group in optimizer["param_groups"]],
            }  # fmt: skip
        detections = json.loads((folder / "inference" / "coco_instances_results.json").read_text())
        return figures | {"detections": detections}


def tensorboard_tags(folder: Path) -> list[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return sorted(EventAccumulator(str(folder)).Reload().Tags()["scalars"])


GROUPS = (events, checkpoints, training_loop, files_of_a_training, numbers_of_a_training)
