"""A trained model, and what it says of the pictures of a dataset."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from d2_detr.checkpoint.checkpointer import DetrCheckpointer
from d2_detr.data.dataset_mapper import DetrDatasetMapper

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model


def load_model(cfg: CfgNode) -> nn.Module:
    """The model of a config with MODEL.WEIGHTS loaded, in evaluation mode.

    Raises:
        InputError: the weights have no class head that fits the model.
    """
    model = build_model(cfg)
    DetrCheckpointer(model, new_parts=()).load(cfg.MODEL.WEIGHTS)
    return model.eval()


@torch.no_grad()
def predict_dataset(
    cfg: CfgNode, model: nn.Module, dataset_name: str, num_pictures: int
) -> Iterator[tuple[dict, dict]]:
    """Dataset dict and the model's output for each of `num_pictures` pictures, evenly spread over the dataset."""
    mapper = DetrDatasetMapper(cfg, is_train=False)
    dataset = DatasetCatalog.get(dataset_name)
    num_pictures = min(num_pictures, len(dataset))
    for number in range(num_pictures):
        dataset_dict = dataset[number * len(dataset) // num_pictures]
        yield dataset_dict, model([mapper(dataset_dict)])[0]
