"""The network of DETR: backbone, transformer, prediction heads (paper, figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import NotRequired

from d2_detr.modeling.position_encoding import SinePositionEncoding
from d2_detr.modeling.segmentation import PYRAMID, AttentionMap, MaskHead, MaskInputs
from d2_detr.modeling.transformer import Transformer


class Outputs(TypedDict):
    """Predictions of L decoder layers; without deep supervision of the last (L = 1)."""

    pred_logits: Tensor  # (L, B, Q, K + 1), index K is no-object
    pred_boxes: Tensor  # (L, B, Q, 4), cxcywh in [0, 1] of the unpadded image
    mask_inputs: NotRequired[MaskInputs]  # for `predict_masks`, if there is a mask head


class DetrNetwork(nn.Module):
    """Predict classes and boxes of Q object queries, and masks of selected queries.

    The state dict has native DETR's layout (`backbone.0.body.conv1.weight`, `transformer.encoder.layers.0...`,
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
        """Add the prediction heads to a backbone and a transformer.

        Args:
            backbone: maps images (B, 3, H, W) to a dict of feature maps, the last with `backbone_channels`.
            pyramid_channels: channels of the feature maps of PYRAMID, for a mask head; None predicts boxes only.
            frozen: train only the mask head; everything else stays in evaluation mode, without gradients.
            autocast_dtype: None leaves an outer autocast (SOLVER.AMP) in effect.
        """
        super().__init__()
        hidden_dim = transformer.hidden_dim
        self.backbone = nn.ModuleList([backbone])  # backbone.0 in native checkpoints
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
        """Set training mode; with `frozen`, only for the mask head."""
        super().train(mode)
        if self.frozen:
            for name, module in self.named_children():
                module.train(mode and name in ("bbox_attention", "mask_head"))
        return self

    def forward(self, images: Tensor, padding_mask: Tensor | None = None) -> Outputs:
        """Predict classes and boxes for every query of every image.

        Args:
            images: (B, 3, H, W), normalized, zero on padding.
            padding_mask: (B, H, W), True on padding; None without any.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self._forward(images, padding_mask)

    def predict_masks(self, inputs: MaskInputs, images: Tensor, queries: Tensor) -> Tensor:
        """Return mask logits (N, H/4, W/4), float32, of pairs of an image and a query.

        `images` (N,) and `queries` (N,) are their indices in the batch.
        """
        device = inputs.states.device
        images, queries = images.to(device), queries.to(device)
        with self._autocast(device.type):
            attention = self.bbox_attention(inputs.states[images, queries], inputs.memory, inputs.padding_mask, images)
            logits = self.mask_head(inputs.features, attention, inputs.pyramid, images)
        return logits.to(inputs.states.dtype)

    def _forward(self, images: Tensor, padding_mask: Tensor | None) -> Outputs:
        with self._autocast(images.device.type):
            feature_maps = self.backbone[0](images)
            last = list(feature_maps.values())[-1]
            features = self.input_proj(last)
            if padding_mask is not None:
                padding_mask = sample_padding_mask(padding_mask, last.shape[-2:])
            position = self.position_encoding(_mask_of_cells(padding_mask, features))
            states, memory = self.transformer(features, position, padding_mask, self.query_embed.weight)
        if not self.deep_supervision:
            states = states[-1:]
        # bfloat16 has 8 significant bits: a box edge in the middle of a 1333 pixel image would move by up to 3 pixels.
        with torch.autocast(images.device.type, enabled=False):
            states = states.to(self.query_embed.weight.dtype)
            outputs = Outputs(pred_logits=self.class_embed(states), pred_boxes=self.bbox_embed(states).sigmoid())
        if self.has_masks:
            pyramid = [feature_maps[name] for name in PYRAMID]
            mask = _mask_of_cells(padding_mask, features)
            outputs["mask_inputs"] = MaskInputs(states[-1], features, memory, mask, pyramid)
        return outputs

    def _autocast(self, device_type: str) -> AbstractContextManager:
        return torch.autocast(device_type, self.autocast_dtype) if self.autocast_dtype else nullcontext()


class BoxHead(nn.Module):
    """Perceptron with two hidden layers that predicts boxes."""

    def __init__(self, hidden_dim: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(hidden_dim, dim) for dim in (hidden_dim, hidden_dim, 4))

    def forward(self, states: Tensor) -> Tensor:
        """Return box logits (..., 4) of states (..., C)."""
        for layer in self.layers[:-1]:
            states = F.relu(layer(states))
        return self.layers[-1](states)


def _mask_of_cells(padding_mask: Tensor | None, features: Tensor) -> Tensor:
    """Return `padding_mask` (B, H, W), or the one of a batch without padding, for features (B, C, H, W)."""
    if padding_mask is not None:
        return padding_mask
    batch, _, height, width = features.shape
    return features.new_zeros(1, height, width, dtype=torch.bool).expand(batch, -1, -1)


def sample_padding_mask(padding_mask: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Sample a mask (B, H, W) at the nearest pixel of each cell of a feature map.

    This is native DETR's way. Rounding up, as in the official wrapper, marks other cells on the border and moves boxes
    by up to 1e-3.
    """
    return F.interpolate(padding_mask[None].float(), size=size_hw, mode="nearest")[0].bool()
