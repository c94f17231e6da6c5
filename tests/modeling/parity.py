"""The network of this project as the recorded models have it, and their batch."""

import torch

from d2_detr.modeling.backbone import TorchvisionResNet
from d2_detr.modeling.network import DetrNetwork
from d2_detr.modeling.segmentation import PYRAMID
from d2_detr.modeling.transformer import Transformer
from tests.reference import native


def build_network(
    *, depth, hidden_dim, nheads, dim_feedforward, enc_layers, dec_layers, dilation=False, pre_norm=False, masks=False
):
    """In float64, without weights."""
    backbone = TorchvisionResNet(
        depth=depth, dilation=dilation, out_features=(*PYRAMID, "res5") if masks else ("res5",)
    )
    shapes = backbone.output_shape()
    return DetrNetwork(
        backbone=backbone,
        backbone_channels=shapes["res5"].channels,
        transformer=Transformer(
            hidden_dim=hidden_dim,
            num_heads=nheads,
            dim_feedforward=dim_feedforward,
            encoder_layers=enc_layers,
            decoder_layers=dec_layers,
            dropout=0.0,
            pre_norm=pre_norm,
        ),
        num_classes=native.NUM_CLASSES,
        num_queries=native.NUM_QUERIES,
        pyramid_channels=[shapes[name].channels for name in PYRAMID] if masks else None,
    ).double()


def pad(images):
    height, width = (max(image.shape[dim] for image in images) for dim in (1, 2))
    batch = torch.zeros(len(images), 3, height, width, dtype=torch.float64)
    padding_mask = torch.ones(len(images), height, width, dtype=torch.bool)
    for image, into, mask in zip(images, batch, padding_mask, strict=True):
        into[:, : image.shape[1], : image.shape[2]] = image
        mask[: image.shape[1], : image.shape[2]] = False
    return batch, padding_mask
