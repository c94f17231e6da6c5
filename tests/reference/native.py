"""What the recorded figures of native DETR and the tests against them share: models, inputs, weights.

Weights follow a rule instead of a seed: every tensor is drawn from a generator seeded with the CRC of its native name,
so that two implementations with the same names hold the same weights whatever order they create them in.

Everything is computed in float64: in float32 the rounding of one processor's convolutions, magnified by a hundred
random layers, is as large as the tolerances.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

FOLDER = Path(__file__).parent
NUM_CLASSES = 7
NUM_QUERIES = 9
SMALL = {"hidden_dim": 32, "nheads": 4, "dim_feedforward": 48, "enc_layers": 2, "dec_layers": 3}
MODELS = {
    "r50": {"depth": 50, "hidden_dim": 256, "nheads": 8, "dim_feedforward": 2048, "enc_layers": 6, "dec_layers": 6},
    "r50_dc5": {"depth": 50, "dilation": True, **SMALL},
    "r101": {"depth": 101, **SMALL},
    "r50_pre_norm": {"depth": 50, "pre_norm": True, **SMALL},
}
GRADIENTS = (
    "backbone.0.body.layer2.0.conv1.weight",
    "input_proj.weight",
    "transformer.encoder.layers.0.self_attn.in_proj_weight",
    "transformer.decoder.layers.1.linear2.weight",
    "query_embed.weight",
)
SIZES_HW = [(150, 197), (131, 96), (64, 203)]
BOXES_CXCYWH = [
    [[0.30, 0.40, 0.20, 0.30], [0.72, 0.55, 0.41, 0.62], [0.10, 0.90, 0.12, 0.15]],
    [[0.50, 0.50, 0.90, 0.80]],
    [],
]
LABELS = [[0, 6, 3], [3], []]


def images() -> list[Tensor]:
    """Three normalised pictures (3, H, W) of unequal size: patchworks, so that the features differ by place."""
    generator = torch.Generator().manual_seed(0)
    coarse = [torch.randn(1, 3, 5, 7, generator=generator) for _ in SIZES_HW]
    return [
        F.interpolate(x, size=size_hw, mode="nearest")[0].double() for x, size_hw in zip(coarse, SIZES_HW, strict=True)
    ]


def targets() -> list[dict[str, Tensor]]:
    """Three, one and no objects."""
    return [
        {"labels": torch.tensor(labels, dtype=torch.int64), "boxes": torch.tensor(boxes).double().reshape(-1, 4)}
        for labels, boxes in zip(LABELS, BOXES_CXCYWH, strict=True)
    ]


@torch.no_grad()
def fill(state_dict: dict[str, Tensor]) -> None:
    """Give every tensor of a state dict with native names its value, in place."""
    for name, tensor in state_dict.items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var") or (name.endswith("weight") and tensor.dim() == 1):
            # The last norm of a residual block is small, or 33 blocks would multiply the signal by 2^33.
            scale = 0.3 if ".bn3." in name and name.endswith("weight") else 1.0
            tensor.copy_(scale * (1 + 0.1 * noise).clamp(min=0.5))
        elif tensor.dim() <= 1:
            tensor.copy_(0.1 * noise)
        elif name == "query_embed.weight":
            tensor.copy_(3 * noise)  # so far apart that the queries differ after every layer
        else:
            tensor.copy_(_gain(name, tensor.dim()) * noise / math.sqrt(tensor[0].numel()))


def _gain(name: str, dim: int) -> float:
    """Standard deviation of what a layer adds to a unit signal. Sharp attention and small residuals keep places and
    queries apart: with uniform attention all states of a deep decoder are one, and a comparison proves nothing."""
    if "in_proj" in name:
        return 2.0
    if "out_proj" in name or ".linear2" in name:
        return 0.3
    return math.sqrt(2) if dim == 4 else 1.0  # a convolution is followed by a ReLU


def sample(gradient: Tensor) -> Tensor:
    """About 256 evenly spread entries, to keep the recorded files small; an odd step does not stay in one column."""
    flat = gradient.flatten()
    return flat[:: flat.numel() // 256 | 1]
