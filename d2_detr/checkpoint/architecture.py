"""Infer the sizes of a DETR from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torchvision
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from d2_detr.checkpoint.layouts import BODY, MASK_PARTS, StateDict
from d2_detr.modeling.network import DetrNetwork
from d2_detr.modeling.transformer import Transformer
from d2_detr.utils.errors import InputError

# (blocks of layer1 to layer4, whether they are bottlenecks) -> depth of the ResNet
_DEPTHS = {(2, 2, 2, 2, False): 18, (3, 4, 6, 3, False): 34, (3, 4, 6, 3, True): 50, (3, 4, 23, 3, True): 101}
# Checkpoints prepared for fine-tuning may lack these.
REPLACEABLE = ("class_embed.", "query_embed.")


@dataclass(frozen=True)
class MaskSizes:
    """Sizes of a mask head: attention heads, and channels of its three backbone feature maps."""

    num_heads: int
    pyramid_channels: tuple[int, ...]


@dataclass(frozen=True)
class Architecture:
    """Sizes of a DETR; None for an unknown backbone or a part that is missing.

    A state dict without a mask head does not tell the number of attention heads, and none tells the dilation (DC5).
    """

    depth: int | None
    stages: int
    backbone_channels: int
    hidden_dim: int
    dim_feedforward: int
    encoder_layers: int
    decoder_layers: int
    pre_norm: bool
    num_queries: int | None
    class_rows: int | None
    mask_head: MaskSizes | None
    num_parameters: int

    @property
    def backbone(self) -> str:
        """Name of the backbone, such as R50, or "R18 up to layer3" if truncated."""
        if self.depth is None:
            return "not one of torchvision's ResNet-18, 34, 50, 101"
        return f"R{self.depth}" + ("" if self.stages == 4 else f" up to layer{self.stages}")


def infer_architecture(canonical: StateDict) -> Architecture:
    """Infer the sizes of a model from its state dict under the canonical names.

    Raises:
        InputError: a part of DETR is missing.
    """
    hidden_dim, channels = _shape(canonical, "input_proj.weight", 4)[:2]
    return Architecture(
        *_resnet(canonical),
        backbone_channels=channels,
        hidden_dim=hidden_dim,
        dim_feedforward=_shape(canonical, "transformer.decoder.layers.0.linear1.weight", 2)[0],
        encoder_layers=_count(canonical, r"transformer\.encoder\.layers\.(\d+)\."),
        decoder_layers=_count(canonical, r"transformer\.decoder\.layers\.(\d+)\."),
        pre_norm="transformer.encoder.norm.weight" in canonical,
        num_queries=_shape(canonical, "query_embed.weight", 2)[0] if "query_embed.weight" in canonical else None,
        class_rows=_shape(canonical, "class_embed.weight", 2)[0] if "class_embed.weight" in canonical else None,
        mask_head=_mask_sizes(canonical, hidden_dim),
        num_parameters=sum(tensor.numel() for name, tensor in canonical.items() if "running_" not in name),
    )


def check_complete(canonical: StateDict, architecture: Architecture) -> list[str]:
    """Check that a state dict has all tensors of a DETR in their shapes.

    Returns:
        Names that are not a part of DETR.

    Raises:
        InputError: a tensor is missing or has another shape; the message names the first and counts them.
    """
    expected = expected_shapes(architecture)
    missing = [name for name in expected if name not in canonical and not name.startswith(REPLACEABLE)]
    if missing:
        raise InputError(
            f"not a complete DETR: {len(missing)} of {len(expected)} tensors are missing, first {missing[0]}"
        )
    wrong = [name for name, shape in expected.items() if name in canonical and canonical[name].shape != shape]
    if wrong:
        raise InputError(
            f"{wrong[0]} has the shape {tuple(canonical[wrong[0]].shape)}, expected {tuple(expected[wrong[0]])}"
            + (f"; {len(wrong) - 1} other tensors have unexpected shapes, too" if len(wrong) > 1 else "")
        )
    # The tensors of a backbone that is not torchvision's are unknown.
    unchecked = () if architecture.depth else ("backbone.",)
    return [
        name
        for name in canonical
        if name not in expected and not name.startswith(unchecked) and not name.endswith("num_batches_tracked")
    ]


def expected_shapes(architecture: Architecture) -> dict[str, torch.Size]:
    """Return the shape of every tensor of a DETR of these sizes, by canonical name."""
    masks = architecture.mask_head
    with torch.device("meta"):
        network = DetrNetwork(
            backbone=_resnet_body(architecture) if architecture.depth else nn.Module(),
            backbone_channels=architecture.backbone_channels,
            transformer=Transformer(
                hidden_dim=architecture.hidden_dim,
                num_heads=masks.num_heads if masks else 1,
                dim_feedforward=architecture.dim_feedforward,
                encoder_layers=architecture.encoder_layers,
                decoder_layers=architecture.decoder_layers,
                pre_norm=architecture.pre_norm,
            ),
            num_classes=(architecture.class_rows or 1) - 1,
            num_queries=architecture.num_queries or 1,
            pyramid_channels=masks.pyramid_channels if masks else None,
        )
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _resnet_body(architecture: Architecture) -> nn.Module:
    resnet = getattr(torchvision.models, f"resnet{architecture.depth}")(weights=None, norm_layer=FrozenBatchNorm2d)
    names = ["conv1", "bn1", *(f"layer{stage + 1}" for stage in range(architecture.stages))]
    backbone = nn.Module()
    backbone.body = nn.ModuleDict({name: getattr(resnet, name) for name in names})
    return backbone


def _resnet(names: Iterable[str]) -> tuple[int | None, int]:
    """Return depth and number of stages of the ResNet; a truncated one counts as the shallowest that matches."""
    blocks = [_count(names, rf"{re.escape(BODY)}layer{stage}\.(\d+)\.") for stage in range(1, 5)]
    stages = sum(number > 0 for number in blocks)
    bottleneck = f"{BODY}layer1.0.conv3.weight" in names
    for (*expected, is_bottleneck), depth in _DEPTHS.items():
        if stages and blocks == expected[:stages] + [0] * (4 - stages) and bottleneck == is_bottleneck:
            return depth, stages
    return None, stages


def _mask_sizes(canonical: StateDict, hidden_dim: int) -> MaskSizes | None:
    if not any(name.startswith(MASK_PARTS) for name in canonical):
        return None
    width = _shape(canonical, "mask_head.lay1.weight", 4)[0]
    num_heads = width - hidden_dim  # the input of its first layer: features, and one attention map per head
    if num_heads < 1:
        raise InputError(f"mask_head.lay1.weight has {width} rows, expected more than HIDDEN_DIM {hidden_dim}")
    return MaskSizes(num_heads, tuple(_shape(canonical, f"mask_head.adapter{i}.weight", 4)[1] for i in (1, 2, 3)))


def _count(names: Iterable[str], pattern: str) -> int:
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def _shape(canonical: StateDict, name: str, dim: int) -> torch.Size:
    if name not in canonical:
        raise InputError(f"not a complete DETR: {name} is missing; is it a checkpoint of another model?")
    if canonical[name].dim() != dim:
        raise InputError(f"{name} has the shape {tuple(canonical[name].shape)}, expected {dim} dimensions")
    return canonical[name].shape
