"""ResNets of torchvision as Detectron2 backbones."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FrozenBatchNorm2d

from d2_detr.modeling.checkpointing import run_block
from d2_detr.modeling.segmentation import PYRAMID
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone

DEPTHS = (18, 34, 50, 101)
NORMS = {"FrozenBN": FrozenBatchNorm2d, "BN": nn.BatchNorm2d}
# Detectron2's name of each stage -> torchvision's name, and the stride without dilation.
STAGES = {"res2": ("layer1", 4), "res3": ("layer2", 8), "res4": ("layer3", 16), "res5": ("layer4", 32)}


class TorchvisionResNet(Backbone):
    """A randomly initialized ResNet, truncated after the last requested stage.

    Parameters are named `body.conv1.weight`, `body.layer1.0...`: torchvision's names under native DETR's prefix.
    With `dilation`, res5 keeps the stride of res4 (DETR-DC5). Its blocks are dilated by [1, 2, 2], as in torchvision
    and the published checkpoints; Detectron2's own ResNet uses [2, 2, 2].
    """

    def __init__(
        self,
        *,
        depth: int = 50,
        norm: str = "FrozenBN",
        freeze_at: int = 2,
        dilation: bool = False,
        out_features: tuple[str, ...] = ("res5",),
        checkpoint_activations: bool = False,
    ):
        """With `freeze_at` 1 the stem is frozen, with 2 also res2, ..., with 5 all."""
        super().__init__()
        _check(depth, norm, freeze_at, dilation, out_features)
        resnet = getattr(torchvision.models, f"resnet{depth}")(
            weights=None, norm_layer=NORMS[norm], replace_stride_with_dilation=[False, False, dilation]
        )
        self._out_features = sorted(out_features)
        self.checkpoint_activations = checkpoint_activations
        max_stride = 16 if dilation else 32
        self._shapes = {
            # Channels double from stage to stage, up to those of the classifier.
            name: ShapeSpec(channels=resnet.fc.in_features * stride // 32, stride=min(stride, max_stride))
            for name, (_, stride) in STAGES.items()
        }
        last_layer, _ = STAGES[self._out_features[-1]]
        self.body = nn.ModuleDict()
        for name, module in resnet.named_children():
            self.body[name] = module
            if name == last_layer:
                break
        if freeze_at:
            for name in ["conv1", "bn1", *(layer for layer, _ in STAGES.values())][: freeze_at + 1]:
                if name in self.body:
                    self.body[name].requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the requested features of images (B, 3, H, W) by name, coarsest last."""
        # channels_last is a third faster on CPUs and, in half precision, on GPUs.
        x = images.contiguous(memory_format=torch.channels_last)
        body: Any = self.body  # with layers of several types
        x = body["maxpool"](F.relu_(conv_norm(body["conv1"], body["bn1"], x)))
        features = {}
        for name, (layer, _) in STAGES.items():
            if layer in body:
                for block in body[layer]:
                    x = run_block(_residual_block, block, x, recompute=self.checkpoint_activations)
            if name in self._out_features:
                features[name] = x
        return features

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of the requested feature maps."""
        return {name: self._shapes[name] for name in self._out_features}


def conv_norm(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution without bias and its norm.

    A frozen norm is a factor and a shift per channel. Folding it into the convolution is exact, and saves writing and
    reading the feature map twice; the gradient of the convolution's weight stays that of the unfolded one.
    """
    if not isinstance(norm, FrozenBatchNorm2d):
        return norm(conv(x))
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = conv.weight * scale[:, None, None, None]
    return F.conv2d(
        x, weight, norm.bias - norm.running_mean * scale, conv.stride, conv.padding, conv.dilation, conv.groups
    )


def _residual_block(block: Any, x: Tensor) -> Tensor:
    """Apply a BasicBlock or a Bottleneck of torchvision to a feature map."""
    shortcut = x if block.downsample is None else conv_norm(block.downsample[0], block.downsample[1], x)
    x = F.relu_(conv_norm(block.conv1, block.bn1, x))
    x = conv_norm(block.conv2, block.bn2, x)
    if isinstance(block, Bottleneck):
        x = conv_norm(block.conv3, block.bn3, F.relu_(x))
    x += shortcut
    return F.relu_(x)


@BACKBONE_REGISTRY.register()
def build_torchvision_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> TorchvisionResNet:
    """Build the ResNet that MODEL.RESNETS and MODEL.BACKBONE describe.

    Mask models also get the feature maps of PYRAMID. `input_shape` belongs to Detectron2's signature; the input always
    has 3 channels.
    """
    resnets = cfg.MODEL.RESNETS
    if resnets.RES5_DILATION not in (1, 2):
        raise InputError(f"MODEL.RESNETS.RES5_DILATION {resnets.RES5_DILATION}: expected 1 or 2")
    if resnets.STRIDE_IN_1X1:
        raise InputError("MODEL.RESNETS.STRIDE_IN_1X1: torchvision's ResNets stride in the 3x3 convolution; set False")
    return TorchvisionResNet(
        depth=resnets.DEPTH,
        norm=resnets.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        dilation=resnets.RES5_DILATION == 2,
        out_features=tuple({*resnets.OUT_FEATURES, *(PYRAMID if cfg.MODEL.MASK_ON else ())}),
        checkpoint_activations=cfg.MODEL.DETR.CHECKPOINT_ACTIVATIONS,
    )


def _check(depth: int, norm: str, freeze_at: int, dilation: bool, out_features: tuple[str, ...]) -> None:
    if depth not in DEPTHS:
        raise InputError(f"MODEL.RESNETS.DEPTH {depth}: expected one of {', '.join(map(str, DEPTHS))}")
    if norm not in NORMS:
        raise InputError(f"MODEL.RESNETS.NORM {norm!r}: expected one of {', '.join(NORMS)}")
    if norm == "BN" and freeze_at:
        raise InputError(
            f"MODEL.BACKBONE.FREEZE_AT {freeze_at} with MODEL.RESNETS.NORM BN: set FREEZE_AT 0 or NORM FrozenBN"
        )
    if dilation and depth < 50:
        raise InputError(f"MODEL.RESNETS.RES5_DILATION 2 needs DEPTH 50 or 101, not {depth}; set either")
    if not out_features or not set(out_features) <= set(STAGES):
        raise InputError(f"MODEL.RESNETS.OUT_FEATURES {list(out_features)}: expected some of {', '.join(STAGES)}")
