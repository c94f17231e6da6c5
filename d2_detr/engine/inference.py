"""A trained model, and what it says of the pictures of a dataset."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from d2_detr.checkpoint.checkpointer import DetrCheckpointer
from d2_detr.data.dataset_mapper import DetrDatasetMapper
from d2_detr.modeling.detr import detections
from d2_detr.visualization.attention import Attention, recording

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.structures import Instances


def load_model(cfg: CfgNode, weights: str = "") -> nn.Module:
    """The model of a config with `weights` loaded, or with its MODEL.WEIGHTS, in evaluation mode.

    Raises:
        InputError: the weights have no class head that fits the model.
    """
    model = build_model(cfg)
    DetrCheckpointer(model, new_parts=()).load(weights or cfg.MODEL.WEIGHTS)
    return model.eval()


@torch.no_grad()
def look_into(model: nn.Module, inputs: dict, threshold: float) -> tuple[Instances, list[int], Attention]:
    """What Detr finds in a picture with at least a score of `threshold`, by which queries, and where it looked."""
    kept: dict[str, Tensor] = {}
    handle = model.detr.register_forward_hook(lambda module, args, outputs: kept.update(outputs))
    try:
        with recording(model.detr.transformer) as attention:
            model([inputs])
    finally:
        handle.remove()
    size_hw = inputs["height"], inputs["width"]
    instances, queries = detections(kept["pred_logits"][-1, 0], kept["pred_boxes"][-1, 0], size_hw, threshold)
    return instances, queries.tolist(), attention[0]


@torch.no_grad()
def predict_dataset(
    cfg: CfgNode, model: nn.Module, dataset_name: str, num_pictures: int
) -> Iterator[tuple[dict, dict, dict]]:
    """Dataset dict, input and output of the model for `num_pictures` pictures, evenly spread over the dataset."""
    mapper = DetrDatasetMapper(cfg, is_train=False)
    dataset = DatasetCatalog.get(dataset_name)
    num_pictures = min(num_pictures, len(dataset))
    for number in range(num_pictures):
        dataset_dict = dataset[number * len(dataset) // num_pictures]
        inputs = mapper(dataset_dict)
        yield dataset_dict, inputs, model([inputs])[0]
