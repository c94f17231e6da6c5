"""Models, inputs and weights for the recorded figures of DETR.

Each tensor is sampled from a generator that is seeded with the CRC of its name. Implementations with the same names
thus have the same weights, in whatever order they create them, and a checkpoint with other names has the right weights
only if it is renamed correctly.

Everything is computed in float64: in float32 the rounding errors of a processor, amplified by a hundred random layers,
are as large as the tolerances.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
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
# With a mask head, whose group norms need a width of at least 128.
MASK_MODELS = {
    "r50_masks": MODELS["r50"],
    "r50_dc5_masks": {"depth": 50, "dilation": True, **SMALL, "hidden_dim": 128, "nheads": 8},
}
DESCENDANTS = {"r50": MODELS["r50"], "r50_small": SMALL}  # for the official wrapper and Hugging Face
GRADIENTS = (
    "backbone.0.body.layer2.0.conv1.weight",
    "input_proj.weight",
    "transformer.encoder.layers.0.self_attn.in_proj_weight",
    "transformer.decoder.layers.1.linear2.weight",
    "query_embed.weight",
)
MASK_GRADIENTS = (
    "bbox_attention.k_linear.weight",
    "mask_head.lay1.weight",
    "mask_head.gn3.weight",
    "mask_head.adapter3.weight",
    "input_proj.weight",
    "query_embed.weight",
)
SIZES_HW = [(150, 197), (131, 96), (64, 203)]
BOXES_CXCYWH = [
    [[0.30, 0.40, 0.20, 0.30], [0.72, 0.55, 0.41, 0.62], [0.10, 0.90, 0.12, 0.15]],
    [[0.50, 0.50, 0.90, 0.80]],
    [],
]
LABELS = [[0, 6, 3], [3], []]
STUFF = (1, 4, 6)
PANOPTIC_HW = (50, 61)
PANOPTIC_THRESHOLD = 0.7
SMALL_SIZES_HW = [(50, 96), (33, 70), (61, 40)]
# For the official wrapper, which rounds the border of the padding up to whole cells of the feature map; native DETR
# rounds to the nearest cell. For multiples of the stride 32 both are equal.
WHOLE_CELLS_HW = [(128, 192), (96, 64), (160, 96)]
WHOLE_CELLS_SMALL_HW = [(64, 96), (32, 96), (64, 32)]
STEPS = 10  # of the optimizer
# A tenth of DETR's: with 1e-4, a rounding error of 1e-7 in the weights grows to a tenth of the changes in ten steps,
# and the results depend on the processor.
LEARNING_RATE = 1e-5
OUTPUT_SIZES_HW = [(300, 401), (96, 64), (75, 50)]  # of detections: enlarged, unchanged, reduced


def images() -> list[Tensor]:
    """Return three normalized images (3, H, W) of different sizes.

    They are patchworks, so that features depend on the place.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = [torch.randn(1, 3, 5, 7, generator=generator) for _ in SIZES_HW]
    return [
        F.interpolate(x, size=size_hw, mode="nearest")[0].double() for x, size_hw in zip(coarse, SIZES_HW, strict=True)
    ]


def targets() -> list[dict[str, Tensor]]:
    """Return the targets of three images, with three, one and no objects."""
    return [
        {"labels": torch.tensor(labels, dtype=torch.int64), "boxes": torch.tensor(boxes).double().reshape(-1, 4)}
        for labels, boxes in zip(LABELS, BOXES_CXCYWH, strict=True)
    ]


def gt_masks() -> list[Tensor]:
    """Return the masks (M, H, W), bool, of each image: ellipses that fill the boxes."""
    masks = []
    for (height, width), boxes in zip(SIZES_HW, BOXES_CXCYWH, strict=True):
        y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
        ellipses = [((x - cx) / w) ** 2 + ((y - cy) / h) ** 2 < 0.25 for cx, cy, w, h in boxes]
        masks.append(torch.stack(ellipses) if ellipses else torch.zeros(0, height, width, dtype=torch.bool))
    return masks


def panoptic_cases() -> list[tuple[Tensor, Tensor]]:
    """Return class logits (Q, K + 1) and mask logits (Q, h, w) of several images.

    Some queries have a high score, others a low one; no two with a high score have the same stuff class; some masks win
    few pixels, or none.
    """
    cases = []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        classes = torch.randperm(NUM_CLASSES, generator=generator)[: 3 + seed % 4]
        things = [label for label in range(NUM_CLASSES) if label not in STUFF]
        classes = [*classes.tolist(), *(things[i] for i in torch.randint(len(things), (4,), generator=generator))]
        sureness = torch.rand(len(classes), generator=generator) * 8
        logits = torch.zeros(len(classes), NUM_CLASSES + 1)
        logits[torch.arange(len(classes)), torch.tensor(classes)] = sureness
        logits[-1, -1] = 10  # no object
        coarse = torch.randn(len(classes), 1, 4, 5, generator=generator)
        masks = F.interpolate(coarse, size=(12, 16), mode="bilinear", align_corners=False)[:, 0]
        masks[0] -= 1.2
        cases.append((logits, masks))
    return cases


def patchwork_images(sizes_hw: list[tuple[int, int]]) -> list[Tensor]:
    """Return a patchwork image (3, H, W), uint8, for each size."""
    generator = torch.Generator().manual_seed(1)
    coarse = [torch.randint(256, (1, 3, 5, 7), generator=generator).float() for _ in sizes_hw]
    return [
        F.interpolate(x, size=size_hw, mode="nearest")[0].byte() for x, size_hw in zip(coarse, sizes_hw, strict=True)
    ]


def config_options(sizes: dict[str, int]) -> list[str]:
    """Return KEY VALUE pairs of this plugin and the official wrapper for a model."""
    keys = {
        "hidden_dim": "HIDDEN_DIM", "nheads": "NHEADS", "dim_feedforward": "DIM_FEEDFORWARD",
        "enc_layers": "ENC_LAYERS", "dec_layers": "DEC_LAYERS",
    }  # fmt: skip
    values = {key: sizes[size] for size, key in keys.items()}
    values |= {"NUM_CLASSES": NUM_CLASSES, "NUM_OBJECT_QUERIES": NUM_QUERIES, "DROPOUT": 0.0}
    pairs = [word for key, value in values.items() for word in (f"MODEL.DETR.{key}", str(value))]
    return ["MODEL.DEVICE", "cpu", *pairs]


@torch.no_grad()
def fill(state_dict: dict[str, Tensor]) -> None:
    """Fill a state dict of native DETR, the wrapper or Hugging Face in place."""
    for name, tensor in state_dict.items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var") or (name.endswith("weight") and tensor.dim() == 1):
            # The last norm of a residual block is small, because 33 blocks would multiply the signal by 2^33.
            last = _has(name, ".bn3.", ".conv3.norm.", ".layer.2.normalization.")
            scale = 0.3 if last and name.endswith("weight") else 1.0
            tensor.copy_(scale * (1 + 0.1 * noise).clamp(min=0.5))
        elif tensor.dim() <= 1:
            tensor.copy_(0.1 * noise)
        elif name.endswith(("query_embed.weight", "query_position_embeddings.weight")):
            tensor.copy_(3 * noise)  # far enough apart for the queries to differ after every layer
        else:
            tensor.copy_(_gain(name, tensor.dim()) * noise / math.sqrt(tensor[0].numel()))
        if name == "mask_head.lay1.weight":
            tensor[:, -8:] *= 100  # attention maps of the heads, which are small compared with the 256 feature channels


def _gain(name: str, dim: int) -> float:
    """Return the standard deviation of what a layer adds to a unit signal.

    Sharp attention and small residuals keep places and queries different: with uniform attention all states of a deep
    decoder are equal, and a comparison proves nothing.
    """
    if _has(name, "q_linear", "k_linear"):
        return 4.0  # after a norm that is not sharp
    if _has(name, "in_proj", "q_proj", "k_proj", "v_proj"):
        return 2.0
    if _has(name, "out_proj", ".linear2", ".fc2"):
        return 0.3
    return math.sqrt(2) if dim == 4 else 1.0  # a convolution is followed by a ReLU


def _has(name: str, *parts: str) -> bool:
    return any(part in name for part in parts)


def sample(tensor: Tensor, size: int = 256) -> Tensor:
    """Return about `size` evenly spaced entries, to keep the recorded files small."""
    flat = tensor.flatten()
    return flat[:: flat.numel() // size | 1]  # an odd step does not stay in one column


def sample_of_changes(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return about 32 entries of `after - before` for each tensor that has changed.

    Fewer would not suffice: between ReLUs, three quarters of the gradients of a convolution are 0.
    """
    return {name: sample(after[name] - before[name], 32) for name in before if not after[name].equal(before[name])}


def checkpoint(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Return tensors with these names and shapes, float32, filled by `fill`."""
    state_dict = {name: torch.empty(shape) for name, shape in shapes.items()}
    fill(state_dict)
    return state_dict


def write(name: str, figures: dict[str, Tensor], shapes: dict[str, list[int]]) -> None:
    """Write figures, and the names and shapes of their checkpoint."""
    figures = {k: (v.float() if v.is_floating_point() else v).detach().clone() for k, v in figures.items()}
    save_file(figures, FOLDER / f"{name}.safetensors", metadata={"shapes": json.dumps(shapes, separators=(",", ":"))})


def read(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return recorded figures and their checkpoint."""
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        figures = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        return figures, checkpoint(json.loads(file.metadata()["shapes"]))
