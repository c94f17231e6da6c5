"""The network of DETR: backbone, transformer and prediction heads, in plain torch (paper, figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2_detr.modeling.position_encoding import SinePositionEncoding
from d2_detr.modeling.segmentation import PYRAMID, AttentionMap, MaskHead, MaskInputs
from d2_detr.modeling.transformer import Transformer


class DetrNetwork(nn.Module):
    """Pictures in, class logits and boxes of N object queries out, and masks of the queries that are asked for.

    The state dict has the native layout (`backbone.0.body.conv1.weight`, `transformer.encoder.layers.0...`,
    `class_embed`, `bbox_embed`, `query_embed`, `input_proj`; with masks `bbox_attention` and `mask_head`).
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
        pyramid_channels: Sequence[int] | None = None,
        frozen: bool = False,
        autocast_dtype: torch.dtype | None = None,
    ):
        """
        Args:
            backbone: from pictures (B, 3, H, W) to a dict of feature maps; the last has `backbone_channels`.
            pyramid_channels: channels of its maps of PYRAMID, for a mask head; None predicts boxes alone.
            frozen: train the mask head alone; all else stays in evaluation mode and has no gradients.
        """
        super().__init__()
        hidden_dim = transformer.hidden_dim
        self.backbone = nn.ModuleList([backbone])  # native checkpoints say backbone.0
        self.position_encoding = SinePositionEncoding(hidden_dim)
        self.input_proj = nn.Conv2d(backbone_channels, hidden_dim, kernel_size=1)
        self.transformer = transformer
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.bbox_embed = BoxHead(hidden_dim)
        self.deep_supervision = deep_supervision and not frozen
        self.autocast_dtype = autocast_dtype
        self.has_masks = pyramid_channels is not None
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)
        if pyramid_channels is not None:
            self.bbox_attention = AttentionMap(hidden_dim, transformer.num_heads)
            self.mask_head = MaskHead(hidden_dim, transformer.num_heads, pyramid_channels)

    def train(self, mode: bool = True) -> DetrNetwork:
        super().train(mode)
        if self.frozen:
            for name, module in self.named_children():
                module.train(mode and name in ("bbox_attention", "mask_head"))
        return self

    def forward(self, images: Tensor, padding_mask: Tensor) -> dict[str, Tensor | MaskInputs]:
        """Predict for every query of every picture.

        Args:
            images: (B, 3, H, W), normalised, zero on padding.
            padding_mask: (B, H, W), True on padding.

        Returns:
            pred_logits: (L, B, Q, K + 1); L is the number of decoder layers with deep supervision, else 1 (the last).
                Index K is no-object.
            pred_boxes: (L, B, Q, 4), cxcywh in [0, 1] of the unpadded picture.
            mask_inputs: for `masks`, where there is a mask head.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self._forward(images, padding_mask)

    def masks(self, inputs: MaskInputs, pictures: Tensor, queries: Tensor) -> Tensor:
        """Mask logits (N, H/4, W/4), float32, of N queries, each of its picture; both are indices (N,)."""
        with self._autocast(inputs.states.device.type):
            pictures = pictures.to(inputs.states.device)
            attention = self.bbox_attention(
                inputs.states[pictures, queries.to(inputs.states.device)], inputs.memory, inputs.padding_mask, pictures
            )
            logits = self.mask_head(inputs.features, attention, inputs.pyramid, pictures)
        return logits.to(inputs.states.dtype)

    def _forward(self, images: Tensor, padding_mask: Tensor) -> dict[str, Tensor | MaskInputs]:
        with self._autocast(images.device.type):
            feature_maps = self.backbone[0](images)
            last = list(feature_maps.values())[-1]
            padding_mask = sample_padding_mask(padding_mask, last.shape[-2:])
            features = self.input_proj(last)
            states, memory = self.transformer(
                features, self.position_encoding(padding_mask), padding_mask, self.query_embed.weight
            )
        if not self.deep_supervision:
            states = states[-1:]
        # Half precision has 8 bits: a box edge in the middle of a 1333 pixel picture would move by up to 3 pixels.
        with torch.autocast(images.device.type, enabled=False):
            states = states.to(self.query_embed.weight.dtype)
            outputs = {"pred_logits": self.class_embed(states), "pred_boxes": self.bbox_embed(states).sigmoid()}
        if self.has_masks:
            pyramid = [feature_maps[name] for name in PYRAMID]
            outputs["mask_inputs"] = MaskInputs(states[-1], features, memory, padding_mask, pyramid)
        return outputs

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
