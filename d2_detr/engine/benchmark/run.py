"""A whole benchmark: what `d2_detr benchmark` does."""

from __future__ import annotations

import gc
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from d2_detr.engine.benchmark.arithmetic import count_batch_flop, measure_limits
from d2_detr.engine.benchmark.batch import draw_batch
from d2_detr.engine.benchmark.compare import check_agreement
from d2_detr.engine.benchmark.contestants import PRECISIONS
from d2_detr.engine.benchmark.evaluation import measure_evaluation
from d2_detr.engine.benchmark.lineup import build_contestants, contestant_names, reasons_to_leave_out
from d2_detr.engine.benchmark.loading import measure_loader
from d2_detr.engine.benchmark.measure import time_alternately
from d2_detr.engine.benchmark.memory import peak_memory
from d2_detr.engine.benchmark.profile import profile_step
from d2_detr.engine.benchmark.results import Results, Row
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode


@dataclass(frozen=True)
class Options:
    """What to measure, and how.

    Args:
        size_hw: height and width of the largest image of the batch, in pixels.
        padded: the other images are smaller.
        precisions: keys of PRECISIONS.
        repeats: calls whose median, minimum and maximum are reported.
        peers: compare with other implementations.
        memory, profile: also measure the peak memory and profile a training step.
        loader: also measure the training loader.
        evaluation: also measure an evaluation of so many images; 0 for none.
    """

    batch_size: int = 2
    size_hw: tuple[int, int] = (800, 1066)
    padded: bool = False
    precisions: Sequence[str] = tuple(PRECISIONS)
    repeats: int = 5
    peers: bool = True
    memory: bool = False
    profile: bool = False
    loader: bool = False
    evaluation: int = 0


def run_benchmark(cfg: CfgNode, options: Options) -> Results:
    """Time the training step and the inference of a config's model.

    Raises:
        InputError: an option is invalid, or a peer does not compute the same (see check_agreement).
    """
    if options.repeats < 1 or options.evaluation < 0:
        raise InputError(f"{options.repeats} repeats, {options.evaluation} evaluated images: expected positive numbers")
    batch = draw_batch(
        options.batch_size,
        options.size_hw,
        num_classes=cfg.MODEL.DETR.NUM_CLASSES,
        padded=options.padded,
        with_masks=cfg.MODEL.MASK_ON,
    )
    results = Results(_settings(cfg, options), left_out=reasons_to_leave_out(cfg) if options.peers else {})
    names = contestant_names(cfg, "float32", peers=options.peers)
    if len(names) > 1:
        results.differences = check_agreement(list(build_contestants(cfg, batch, "float32", names).values()))
    results.flop = count_batch_flop(cfg, batch)
    for precision in options.precisions:
        gc.collect()  # the contestants before these, which their optimizers' hooks keep in cycles
        _measure_precision(cfg, options, batch, precision, results)
    if options.loader:
        results.loader = measure_loader(cfg)
    return results


def _measure_precision(
    cfg: CfgNode, options: Options, batch: list[dict[str, Any]], precision: str, results: Results
) -> None:
    """Add the measurements at a precision to the results."""
    device = torch.device(cfg.MODEL.DEVICE)
    limits_before = measure_limits(device, precision)
    names = contestant_names(cfg, precision, peers=options.peers)
    contestants = build_contestants(cfg, batch, precision, names)
    training = {name: c.train_step for name, c in contestants.items() if c.trains}
    detecting = {name: c.infer for name, c in contestants.items() if c.detects}
    train = time_alternately(training, options.repeats, device, f"Training steps, {precision}")
    inference = time_alternately(detecting, options.repeats, device, f"Inference, {precision}")
    # The better of two: other processes may have used the machine during one of them.
    limits = measure_limits(device, precision)
    results.limits[precision] = {name: max(limit, limits_before[name]) for name, limit in limits.items()}
    for name, contestant in contestants.items():
        row = Row(name, precision, contestant.same_work, train.get(name), inference.get(name))
        if options.profile and contestant.trains:
            row.profile = profile_step(contestant, device)
        if options.memory and contestant.trains:
            row.memory = peak_memory(cfg, batch, precision, contestant)
        results.rows.append(row)
    if options.evaluation:
        results.evaluation[precision] = measure_evaluation(cfg, contestants.values(), options.evaluation)


def _settings(cfg: CfgNode, options: Options) -> dict[str, Any]:
    device = torch.device(cfg.MODEL.DEVICE)
    height, width = options.size_hw
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "batch": f"{options.batch_size} x {height} x {width}" + ", padded" * options.padded,
        "repeats": options.repeats,
        "torch": torch.__version__,
    }
