"""Networks with the sizes of the recorded models, and their padded batch."""

import torch

from d2_detr.modeling.backbone import TorchvisionResNet
from d2_detr.modeling.network import DetrNetwork
from d2_detr.modeling.segmentation import PYRAMID
from d2_detr.modeling.transformer import Transformer
from tests.reference import native


def build_network(
    *, depth, hidden_dim, nheads, dim_feedforward, enc_layers, dec_layers, dilation=False, pre_norm=False, masks=False
):
    """Build a randomly initialized network in float64."""
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
    """Return a batch (B, 3, H, W) and its padding mask (B, H, W)."""
    height, width = (max(image.shape[dim] for image in images) for dim in (1, 2))
    batch = torch.zeros(len(images), 3, height, width, dtype=torch.float64)
    padding_mask = torch.ones(len(images), height, width, dtype=torch.bool)
    for image, padded, mask in zip(images, batch, padding_mask, strict=True):
        padded[:, : image.shape[1], : image.shape[2]] = image
        mask[: image.shape[1], : image.shape[2]] = False
    return batch, padding_mask
