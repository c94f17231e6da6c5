"""A tiny untrained model that predicts all of its three classes in any image."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from d2_detr.checkpoint.checkpointer import DetrCheckpointer
from d2_detr.config import load_config
from d2_detr.structures.label_map import LabelMap

from detectron2.config import CfgNode
from detectron2.modeling import build_model

CLASSES = LabelMap((3, 7, 20), ("disc", "square", "triangle"))
OPTS = (
    "MODEL.DEVICE cpu MODEL.DETR.AUTOCAST off MODEL.DETR.HIDDEN_DIM 32 MODEL.DETR.NHEADS 4 "
    "MODEL.DETR.DIM_FEEDFORWARD 32 MODEL.DETR.ENC_LAYERS 1 MODEL.DETR.DEC_LAYERS 2 MODEL.DETR.NUM_CLASSES 3 "
    "INPUT.MIN_SIZE_TEST 64 INPUT.MAX_SIZE_TEST 100"
).split()
MASKS = "MODEL.MASK_ON True MODEL.DETR.HIDDEN_DIM 128 MODEL.DETR.NHEADS 8".split()
PANOPTIC = (
    *MASKS,
    *"MODEL.DETR.PANOPTIC_ON True MODEL.DETR.PANOPTIC_SCORE_THRESH 0.1 MODEL.DETR.STUFF_CLASSES (2,)".split(),
)


def untrained_model(*opts: str) -> tuple[nn.Module, CfgNode]:
    """Return the model and its config, identical in every call."""
    torch.manual_seed(0)
    cfg = load_config("detr_compact_balloon.yaml", [*OPTS, *opts])
    model = build_model(cfg).eval()
    head = model.detr.class_embed
    with torch.no_grad():
        model.detr.query_embed.weight.mul_(10)
        head.weight.mul_(10)
        outputs = model.detr(torch.randn(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.bool))
        head.bias.sub_(outputs["pred_logits"][-1].mean((0, 1)))
    return model, cfg


def save_untrained(folder: Path, *opts: str) -> tuple[Path, nn.Module, CfgNode]:
    """Write the model as a checkpoint; return the path, the model and its config."""
    model, cfg = untrained_model(*opts)
    DetrCheckpointer(model, str(folder), label_map=CLASSES, config=cfg.dump()).save("model")
    return folder / "model.pth", model, cfg
