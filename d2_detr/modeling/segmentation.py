"""The mask head of DETR and its losses (paper, section 4.4 and figure 8).

Shape shorthand: B images, N pairs of an image and one of its queries, C = hidden_dim, h and w of the memory, H/4 and
W/4 of the finest feature map. Masks are computed only for the given pairs: the matched ones in training, those above
the score threshold in inference. Parameter names are those of the native code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from d2_detr.utils.errors import InputError

# Backbone features added while the masks are upsampled, coarse to fine. res4 comes first even if res5 has the same
# stride (DC5) or is absent.
PYRAMID = ("res4", "res3", "res2")
NUM_GROUPS = 8  # of the group norms
MAX_PIXELS_PER_CHUNK = 2**24  # of upsampled masks, so that memory does not grow with their number


class MaskInputs(NamedTuple):
    """Inputs of the mask head for a batch."""

    states: Tensor  # (B, Q, C), of the last decoder layer
    features: Tensor  # (B, C, h, w), input of the encoder
    memory: Tensor  # (B, C, h, w), output of the encoder
    padding_mask: Tensor  # (B, h, w), True on padding
    pyramid: list[Tensor]  # feature maps of PYRAMID, each (B, channels, H/stride, W/stride)


class AttentionMap(nn.Module):
    """Attention of each head of a query to each cell of the memory."""

    def __init__(self, hidden_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.q_linear = nn.Linear(hidden_dim, hidden_dim)
        self.k_linear = nn.Linear(hidden_dim, hidden_dim)
        for linear in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, states: Tensor, memory: Tensor, padding_mask: Tensor, images: Tensor) -> Tensor:
        """Return the attention (N, heads, h, w) of states (N, C) of `images` (N,).

        As in the native code, the weights of a query sum to 1 over all heads and cells; they are 0 on padding.
        """
        head_dim = states.shape[1] // self.num_heads
        queries = self.q_linear(states).unflatten(1, (self.num_heads, head_dim)) * head_dim**-0.5
        keys = self.k_linear(memory.flatten(2).transpose(1, 2)).unflatten(2, (self.num_heads, head_dim))
        logits = torch.einsum("nkc,nskc->nks", queries, keys[images])
        logits = logits.masked_fill(padding_mask.flatten(1)[images, None], float("-inf"))
        return logits.flatten(1).softmax(-1).view(len(states), self.num_heads, *memory.shape[-2:])


class MaskHead(nn.Module):
    """Upsample attention maps to mask logits, adding backbone features at each scale."""

    def __init__(self, hidden_dim: int, num_heads: int, pyramid_channels: Sequence[int]):
        super().__init__()
        dim = hidden_dim + num_heads
        if hidden_dim % (16 * NUM_GROUPS) or dim % NUM_GROUPS:
            raise InputError(
                f"hidden_dim {hidden_dim} and num_heads {num_heads}: the group norms of the mask head need a multiple "
                f"of {16 * NUM_GROUPS} and a multiple of {NUM_GROUPS}"
            )
        widths = [dim, dim, hidden_dim // 2, hidden_dim // 4, hidden_dim // 8, hidden_dim // 16]

        def layer(i: int) -> tuple[nn.Conv2d, nn.GroupNorm]:
            return nn.Conv2d(widths[i - 1], widths[i], 3, padding=1), nn.GroupNorm(NUM_GROUPS, widths[i])

        self.lay1, self.gn1 = layer(1)
        self.lay2, self.gn2 = layer(2)
        self.lay3, self.gn3 = layer(3)
        self.lay4, self.gn4 = layer(4)
        self.lay5, self.gn5 = layer(5)
        self.out_lay = nn.Conv2d(widths[-1], 1, 3, padding=1)
        self.adapter1, self.adapter2, self.adapter3 = (
            nn.Conv2d(channels, width, 1) for channels, width in zip(pyramid_channels, widths[2:5], strict=True)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor, attention: Tensor, pyramid: Sequence[Tensor], images: Tensor) -> Tensor:
        """Return mask logits (N, H/4, W/4).

        Args:
            features: (B, C, h, w), input of the encoder.
            attention: (N, heads, h, w).
            pyramid: (B, channels, H/stride, W/stride) each, coarse to fine.
            images: (N,), index of each attention map's image.
        """
        x = F.relu(self.gn1(self._first_layer(features, attention, images)))
        x = F.relu(self.gn2(self.lay2(x)))
        steps = [
            (self.adapter1, self.lay3, self.gn3),
            (self.adapter2, self.lay4, self.gn4),
            (self.adapter3, self.lay5, self.gn5),
        ]
        for level, (adapter, layer, norm) in zip(pyramid, steps, strict=True):
            finer = adapter(level)
            x = finer[images] + F.interpolate(x, size=finer.shape[-2:], mode="nearest")
            x = F.relu(norm(layer(x)))
        return self.out_lay(x)[:, 0]

    def _first_layer(self, features: Tensor, attention: Tensor, images: Tensor) -> Tensor:
        """Apply lay1 to the concatenated features and attention.

        The part of the features is the same for all queries of an image; computing it once saves a third of the head.
        """
        feature_weight, attention_weight = self.lay1.weight.split([features.shape[1], attention.shape[1]], dim=1)
        shared = F.conv2d(features, feature_weight, self.lay1.bias, padding=1)
        return shared[images] + F.conv2d(attention, attention_weight, padding=1)


def mask_losses(logits: Tensor, gt_masks: Sequence[Tensor], num_boxes: Tensor) -> dict[str, Tensor]:
    """Compute the focal and DICE losses of matched queries, as in the native code.

    Args:
        logits: (N, H/4, W/4), of the matched queries of the batch.
        gt_masks: (M, H, W), bool, for each image: its matched objects in the same order. They are padded to the largest
            of them, which is the padded size of the batch.
        num_boxes: divisor of both losses.

    Returns:
        `loss_mask`: focal loss (alpha 0.25, gamma 2), averaged over pixels and summed over queries; `loss_dice`: 1 -
        DICE, smoothed by 1 in numerator and denominator, summed over queries.
    """
    height, width = (max(masks.shape[dim] for masks in gt_masks) for dim in (1, 2))
    padded = [F.pad(masks, (0, width - masks.shape[2], 0, height - masks.shape[1])) for masks in gt_masks]
    targets = torch.cat(padded).flatten(1).to(logits.dtype)
    logits = resize_logits(logits, (height, width)).flatten(1)
    focal = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2)
    probability = logits.sigmoid()
    overlap, total = (probability * targets).sum(1), probability.sum(1) + targets.sum(1)
    return {
        "loss_mask": focal.sum() / focal.shape[1] / num_boxes,
        "loss_dice": (1 - (2 * overlap + 1) / (total + 1)).sum() / num_boxes,
    }


def crop_to_image(inputs: MaskInputs, index: int, image_hw: tuple[int, int], padded_hw: tuple[int, int]) -> MaskInputs:
    """Select one image of a batch without its padding, as a batch of one.

    The group norms average over all cells: with the padding, a mask would depend on the other images in the batch.
    """

    def crop(cells: Tensor) -> Tensor:
        height, width = (
            math.ceil(image / 2 ** round(math.log2(padded / number)))  # strides are powers of two
            for image, padded, number in zip(image_hw, padded_hw, cells.shape[-2:], strict=True)
        )
        return cells[index : index + 1, ..., :height, :width]

    features, memory, padding_mask = (crop(x) for x in (inputs.features, inputs.memory, inputs.padding_mask))
    pyramid = [crop(level) for level in inputs.pyramid]
    return MaskInputs(inputs.states[index : index + 1], features, memory, padding_mask, pyramid)


def resize_logits(logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize mask logits (N, h, w) to (N, H, W) bilinearly."""
    return F.interpolate(logits[:, None], size=size_hw, mode="bilinear", align_corners=False)[:, 0]


def binary_masks(logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Convert mask logits (N, h, w) of a whole image to masks (N, H, W), bool."""
    masks = torch.empty((len(logits), *size_hw), dtype=torch.bool, device=logits.device)
    chunk_size = max(1, MAX_PIXELS_PER_CHUNK // math.prod(size_hw))
    for chunk, out in zip(logits.split(chunk_size), masks.split(chunk_size), strict=True):
        torch.gt(resize_logits(chunk, size_hw), 0, out=out)
    return masks
