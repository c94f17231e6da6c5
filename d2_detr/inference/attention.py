"""A trained model, and a look into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from d2_detr.checkpoint.checkpointer import DetrCheckpointer
from d2_detr.data.images import read_image
from d2_detr.modeling.detr import decode_detections
from d2_detr.visualization.attention import Attention, recording

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Instances

T = TypeVar("T")


def load_model(cfg: CfgNode) -> nn.Module:
    """The model of a config with MODEL.WEIGHTS loaded, in evaluation mode.

    Raises:
        InputError: the weights have no class head that fits the model.
    """
    model = build_model(cfg)
    DetrCheckpointer(model, may_reinitialize=()).load(cfg.MODEL.WEIGHTS)
    return model.eval()


@torch.no_grad()
def predict_with_attention(model: nn.Module, inputs: dict, threshold: float) -> tuple[Instances, list[int], Attention]:
    """What Detr finds in a picture with at least a score of `threshold`, the surest first, by which queries, and where
    it looked."""
    kept: dict[str, Tensor] = {}
    handle = model.detr.register_forward_hook(lambda module, args, outputs: kept.update(outputs))
    try:
        with recording(model.detr.transformer) as attention:
            model([inputs])
    finally:
        handle.remove()
    size_hw = inputs["height"], inputs["width"]
    instances, queries = decode_detections(kept["pred_logits"][-1, 0], kept["pred_boxes"][-1, 0], size_hw, threshold)
    order = instances.scores.argsort(descending=True)
    return instances[order], queries[order].tolist(), attention[0]


def sample_evenly(dataset: Sequence[T], number: int) -> list[T]:
    """So many entries, or all of them where there are fewer, evenly spread."""
    number = min(number, len(dataset))
    return [dataset[i * len(dataset) // number] for i in range(number)]


def pixels_of(record: dict) -> np.ndarray:
    """The picture (H, W, 3), uint8, RGB, of a dataset dict."""
    return read_image(record["file_name"], annotated_wh=(record["width"], record["height"]))
