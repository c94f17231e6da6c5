"""Timing of a training step and of inference, on random images."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from d2_detr.engine.optimizer import build_optimizer
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances


def benchmark(cfg: CfgNode, *, batch_size: int, size_hw: tuple[int, int], repeats: int) -> dict[str, float]:
    """Time a model of a config.

    Returns:
        Median seconds of `repeats` calls with a batch, after one for warm-up, of `training step` and `inference`.
    """
    if min(batch_size, repeats, *size_hw) < 1:
        raise InputError(f"batch size {batch_size}, size {size_hw}, {repeats} repeats: expected positive numbers")
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    batch = [random_image(size_hw) for _ in range(batch_size)]

    def training_step() -> None:
        loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def inference() -> None:
        model(batch)

    return {
        "training step": _median_seconds(training_step, model.train(), repeats),
        "inference": _median_seconds(inference, model.eval(), repeats),
    }


def random_image(size_hw: tuple[int, int], num_objects: int = 5) -> dict:
    """Return a noise image (3, H, W) with a few boxes and masks of class 0, as input of Detr."""
    height, width = size_hw
    corner = torch.rand(num_objects, 2) * 0.6
    boxes = torch.cat((corner, corner + 0.1 + 0.3 * torch.rand(num_objects, 2)), dim=1)
    instances = Instances(size_hw)
    instances.gt_boxes = Boxes(boxes * torch.tensor([width, height, width, height]))
    instances.gt_classes = torch.zeros(num_objects, dtype=torch.int64)
    instances.gt_masks = BitMasks(torch.rand(num_objects, height, width) > 0.5)
    return {"image": torch.randint(0, 256, (3, height, width), dtype=torch.uint8), "instances": instances}


def _median_seconds(call: Callable[[], None], model: torch.nn.Module, repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])
