"""The mask head of DETR, its losses, and masks at the size of the picture (paper, section 4.4 and figure 8).

Shape shorthand: B pictures, N pairs of a picture and one of its queries, C = hidden_dim, h and w of the memory,
H/4 and W/4 of the finest feature map. Only the pairs that are asked for are computed: in training the matched ones, in
inference those above the score threshold. Parameter names are those of the native code.
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

# Feature maps beside which the masks grow, coarse to fine. res4 is the coarsest also where res5 has its stride (DC5),
# or where the backbone ends with it.
PYRAMID = ("res4", "res3", "res2")
GROUPS = 8  # of the group norms
PIXELS_AT_ONCE = 2**24  # at the size of the picture, so that a hundred masks take no more memory than a few


class MaskInputs(NamedTuple):
    """What the mask head needs of a batch."""

    states: Tensor  # (B, Q, C), of the last decoder layer
    features: Tensor  # (B, C, h, w), what the encoder was given
    memory: Tensor  # (B, C, h, w), what it made of them
    padding_mask: Tensor  # (B, h, w), True on padding
    pyramid: list[Tensor]  # feature maps of PYRAMID, each (B, channels, H/stride, W/stride)


class AttentionMap(nn.Module):
    """How much each head of a query attends to each cell of the memory."""

    def __init__(self, hidden_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.q_linear = nn.Linear(hidden_dim, hidden_dim)
        self.k_linear = nn.Linear(hidden_dim, hidden_dim)
        for linear in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, states: Tensor, memory: Tensor, padding_mask: Tensor, pictures: Tensor) -> Tensor:
        """Attention (N, heads, h, w) of the states (N, C) of queries of `pictures` (N,).

        The weights of all heads and cells of a query together sum to 1, as in the native code; 0 on padding.
        """
        of_head = states.shape[1] // self.num_heads
        queries = self.q_linear(states).unflatten(1, (self.num_heads, of_head)) * of_head**-0.5
        keys = self.k_linear(memory.flatten(2).transpose(1, 2)).unflatten(2, (self.num_heads, of_head))
        logits = torch.einsum("nkc,nskc->nks", queries, keys[pictures])
        logits = logits.masked_fill(padding_mask.flatten(1)[pictures, None], float("-inf"))
        return logits.flatten(1).softmax(-1).view(len(states), self.num_heads, *memory.shape[-2:])


class MaskHead(nn.Module):
    """From attention maps to mask logits: convolutions that grow finer beside the feature maps of the backbone."""

    def __init__(self, hidden_dim: int, num_heads: int, pyramid_channels: Sequence[int]):
        super().__init__()
        dim = hidden_dim + num_heads
        if hidden_dim % (16 * GROUPS) or dim % GROUPS:
            raise InputError(
                f"masks need a hidden_dim that is a multiple of {16 * GROUPS} and a number of heads that is one of "
                f"{GROUPS}, for the groups of their norms; got {hidden_dim} and {num_heads}"
            )
        widths = [dim, dim, hidden_dim // 2, hidden_dim // 4, hidden_dim // 8, hidden_dim // 16]
        for i in range(1, 6):
            self.add_module(f"lay{i}", nn.Conv2d(widths[i - 1], widths[i], 3, padding=1))
            self.add_module(f"gn{i}", nn.GroupNorm(GROUPS, widths[i]))
        self.out_lay = nn.Conv2d(widths[-1], 1, 3, padding=1)
        for i, channels in enumerate(pyramid_channels, start=1):
            self.add_module(f"adapter{i}", nn.Conv2d(channels, widths[i + 1], 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor, attention: Tensor, pyramid: Sequence[Tensor], pictures: Tensor) -> Tensor:
        """features (B, C, h, w), attention (N, heads, h, w), pyramid coarse to fine -> logits (N, H/4, W/4)."""
        x = F.relu(self.gn1(self._first_layer(features, attention, pictures)))
        x = F.relu(self.gn2(self.lay2(x)))
        steps = [
            (self.adapter1, self.lay3, self.gn3),
            (self.adapter2, self.lay4, self.gn4),
            (self.adapter3, self.lay5, self.gn5),
        ]
        for level, (adapter, layer, norm) in zip(pyramid, steps, strict=True):
            finer = adapter(level)
            x = finer[pictures] + F.interpolate(x, size=finer.shape[-2:], mode="nearest")
            x = F.relu(norm(layer(x)))
        return self.out_lay(x)[:, 0]

    def _first_layer(self, features: Tensor, attention: Tensor, pictures: Tensor) -> Tensor:
        """lay1 of features and attention side by side. The share of the features is the same for all queries of a
        picture and computed once: a third of the whole head."""
        of_features, of_attention = self.lay1.weight.split([features.shape[1], attention.shape[1]], dim=1)
        shared = F.conv2d(features, of_features, self.lay1.bias, padding=1)
        return shared[pictures] + F.conv2d(attention, of_attention, padding=1)


def mask_losses(logits: Tensor, gt_masks: list[Tensor], num_boxes: Tensor) -> dict[str, Tensor]:
    """Focal loss and DICE of the masks of matched queries, as the native code has them.

    Args:
        logits: (N, H/4, W/4), of the matched queries of the batch.
        gt_masks: for each picture (M, H, W), bool, of its matched objects in the same order; they are compared on the
            padded size of the batch, which is that of the largest.
        num_boxes: what both are divided by.

    Returns:
        `loss_mask`: focal loss (alpha 0.25, gamma 2), its mean over the cells summed over the queries; `loss_dice`: 1 -
        DICE, summed over the queries, with a 1 above and below the line.
    """
    size_hw = [max(masks.shape[dim] for masks in gt_masks) for dim in (1, 2)]
    targets = torch.cat(
        [F.pad(masks, (0, size_hw[1] - masks.shape[2], 0, size_hw[0] - masks.shape[1])) for masks in gt_masks]
    ).flatten(1).to(logits.dtype)  # fmt: skip
    logits = F.interpolate(logits[:, None], size=size_hw, mode="bilinear", align_corners=False).flatten(1)
    focal = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2)
    probability = logits.sigmoid()
    overlap, total = (probability * targets).sum(1), probability.sum(1) + targets.sum(1)
    return {
        "loss_mask": focal.sum() / focal.shape[1] / num_boxes,
        "loss_dice": (1 - (2 * overlap + 1) / (total + 1)).sum() / num_boxes,
    }


def of_picture(inputs: MaskInputs, picture: int, image_hw: tuple[int, int], padded_hw: tuple[int, int]) -> MaskInputs:
    """The cells of one picture of a batch that was padded to `padded_hw`, as a batch of its own.

    The head's norms go over all cells: with the padding among them, a mask would depend on the company of its picture.
    """

    def crop(cells: Tensor) -> Tensor:
        height, width = (
            math.ceil(image / 2 ** round(math.log2(padded / number)))  # strides are powers of two
            for image, padded, number in zip(image_hw, padded_hw, cells.shape[-2:], strict=True)
        )
        return cells[picture : picture + 1, ..., :height, :width]

    features, memory, padding_mask = (crop(x) for x in (inputs.features, inputs.memory, inputs.padding_mask))
    pyramid = [crop(level) for level in inputs.pyramid]
    return MaskInputs(inputs.states[picture : picture + 1], features, memory, padding_mask, pyramid)


def resize_logits(logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Mask logits (N, h, w) of a whole picture -> (N, H, W), bilinear, in one step whatever the sizes are."""
    return F.interpolate(logits[:, None], size=size_hw, mode="bilinear", align_corners=False)[:, 0]


def binary_masks(logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Mask logits (N, h, w) of a whole picture -> masks (N, H, W), bool, a few at a time for the memory."""
    masks = torch.empty((len(logits), *size_hw), dtype=torch.bool, device=logits.device)
    at_once = max(1, PIXELS_AT_ONCE // math.prod(size_hw))
    for part, into in zip(logits.split(at_once), masks.split(at_once), strict=True):
        torch.gt(resize_logits(part, size_hw), 0, out=into)
    return masks
