"""The network of DETR: backbone, transformer and prediction heads, in plain torch (paper, figure 2)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2_detr.modeling.position_encoding import SinePositionEncoding
from d2_detr.modeling.transformer import Transformer


class DetrNetwork(nn.Module):
    """Pictures in, class logits and boxes of N object queries out.

    The state dict has the native layout (`backbone.0.body.conv1.weight`, `transformer.encoder.layers.0...`,
    `class_embed`, `bbox_embed`, `query_embed`, `input_proj`).
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        backbone_channels: int,
        transformer: Transformer,
        num_classes: int,
        num_queries: int,
        deep_supervision: bool = True,
        autocast_dtype: torch.dtype | None = None,
    ):
        """`backbone` maps pictures (B, 3, H, W) to a dict of feature maps; the last has `backbone_channels`."""
        super().__init__()
        hidden_dim = transformer.hidden_dim
        self.backbone = nn.ModuleList([backbone])  # native checkpoints say backbone.0
        self.position_encoding = SinePositionEncoding(hidden_dim)
        self.input_proj = nn.Conv2d(backbone_channels, hidden_dim, kernel_size=1)
        self.transformer = transformer
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.bbox_embed = BoxHead(hidden_dim)
        self.deep_supervision = deep_supervision
        self.autocast_dtype = autocast_dtype

    def forward(self, images: Tensor, padding_mask: Tensor) -> dict[str, Tensor]:
        """Predict for every query of every picture.

        Args:
            images: (B, 3, H, W), normalised, zero on padding.
            padding_mask: (B, H, W), True on padding.

        Returns:
            pred_logits: (L, B, Q, K + 1); L is the number of decoder layers in training with deep supervision, else 1
                (the last). Index K is no-object.
            pred_boxes: (L, B, Q, 4), cxcywh in [0, 1] of the unpadded picture.
        """
        with self._autocast(images.device.type):
            features = list(self.backbone[0](images).values())[-1]
            padding_mask = sample_padding_mask(padding_mask, features.shape[-2:])
            states, _ = self.transformer(
                self.input_proj(features),
                self.position_encoding(padding_mask),
                padding_mask,
                self.query_embed.weight,
            )
        if not (self.training and self.deep_supervision):
            states = states[-1:]
        # Half precision has 8 bits: a box edge in the middle of a 1333 pixel picture would move by up to 3 pixels.
        with torch.autocast(images.device.type, enabled=False):
            states = states.to(self.query_embed.weight.dtype)
            return {"pred_logits": self.class_embed(states), "pred_boxes": self.bbox_embed(states).sigmoid()}

    def _autocast(self, device_type: str) -> AbstractContextManager:
        """Without a dtype of its own the network leaves an outer autocast (SOLVER.AMP) alone."""
        return torch.autocast(device_type, self.autocast_dtype) if self.autocast_dtype else nullcontext()


class BoxHead(nn.Module):
    """Perceptron with two hidden layers, from states (..., C) to box logits (..., 4)."""

    def __init__(self, hidden_dim: int):
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(hidden_dim, hidden_dim), nn.Linear(hidden_dim, hidden_dim), nn.Linear(hidden_dim, 4)]
        )

    def forward(self, states: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            states = F.relu(layer(states))
        return self.layers[-1](states)


def sample_padding_mask(padding_mask: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Mask (B, H, W) at the resolution of a feature map (B, h, w), by nearest sampling as native DETR does it.

    Rounding up instead (the official wrapper) marks other cells on the border, and boxes move by up to 1e-3.
    """
    return F.interpolate(padding_mask[None].float(), size=size_hw, mode="nearest")[0].bool()
