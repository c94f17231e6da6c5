"""How many operations a step needs, and how many the machine can do in a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from d2_detr.engine.benchmark.contestants import PRECISIONS, Ours
from d2_detr.engine.benchmark.measure import time_call

from detectron2.config import CfgNode

CONVOLUTIONS, MATRIX_PRODUCTS = "convolutions", "matrix products"
# Side of the matrices; channels and side of the feature maps of a 3x3 convolution.
SIZES = {"cpu": (1024, 256, 32), "cuda": (8192, 512, 128)}
CALLS = 5


def count_batch_flop(cfg: CfgNode, batch: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the floating-point operations of a training step and of inference on a batch, by pass and kind.

    They are those of the model, whoever computes it, and in any precision.
    """
    ours = Ours(cfg, batch, "float32")
    flop = {"train": count_flop(ours.train_step)}
    ours.model.requires_grad_(False)  # the counter fails on parameters that require gradients where none are computed
    return flop | {"inference": count_flop(ours.infer)}


def count_flop(call: Callable[[], object]) -> dict[str, int]:
    """Count the floating-point operations of CONVOLUTIONS and of MATRIX_PRODUCTS; a multiply-add is two.

    Attention is computed with plain products during the count, since not every fused kernel has a formula.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    flop = dict.fromkeys((CONVOLUTIONS, MATRIX_PRODUCTS), 0)
    for operator, count in counter.get_flop_counts()["Global"].items():
        flop[CONVOLUTIONS if "conv" in str(operator) else MATRIX_PRODUCTS] += count
    return flop


def measure_limits(device: torch.device, precision: str) -> dict[str, float]:
    """Return the floating-point operations per second of large plain matrix products and convolutions, by kind.

    The best of several calls counts: it is a limit.
    """
    dtype = PRECISIONS[precision] or torch.float32
    side, channels, map_side = SIZES.get(device.type, SIZES["cpu"])
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    images = torch.randn(4, channels, map_side, map_side, device=device, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
    weight = weight.contiguous(memory_format=torch.channels_last)
    calls = {
        MATRIX_PRODUCTS: lambda: matrix @ matrix,
        CONVOLUTIONS: lambda: F.conv2d(images, weight, padding=1),
    }
    with torch.no_grad():
        return {
            kind: count_flop(call)[kind] / min(time_call(call, device) for _ in range(CALLS))
            for kind, call in calls.items()
        }
