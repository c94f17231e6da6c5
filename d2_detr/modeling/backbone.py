"""torchvision's ResNets as Detectron2 backbones."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from d2_detr.modeling.segmentation import PYRAMID
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone

DEPTHS = (18, 34, 50, 101)
NORMS = {"FrozenBN": FrozenBatchNorm2d, "BN": nn.BatchNorm2d}
# Detectron2's name of each stage -> torchvision's, and its stride without dilation.
STAGES = {"res2": ("layer1", 4), "res3": ("layer2", 8), "res4": ("layer3", 16), "res5": ("layer4", 32)}


class TorchvisionResNet(Backbone):
    """A ResNet cut behind the last stage that is asked for, without ImageNet weights (those come from a checkpoint).

    Parameters are named `body.conv1.weight`, `body.layer1.0...`: torchvision's names under native DETR's prefix.
    With `dilation`, res5 keeps the stride of res4 (DETR-DC5). torchvision dilates its blocks by [1, 2, 2], and so did
    the published checkpoints; Detectron2's own ResNet would dilate by [2, 2, 2].
    """

    def __init__(
        self,
        *,
        depth: int = 50,
        norm: str = "FrozenBN",
        freeze_at: int = 2,
        dilation: bool = False,
        out_features: tuple[str, ...] = ("res5",),
    ):
        """`freeze_at`: 0 trains all, 1 freezes the stem, 2 the stem and res2, ... 5 everything."""
        super().__init__()
        _check(depth, norm, freeze_at, dilation, out_features)
        resnet = getattr(torchvision.models, f"resnet{depth}")(
            weights=None, norm_layer=NORMS[norm], replace_stride_with_dilation=[False, False, dilation]
        )
        self._out_features = sorted(out_features)
        self._shapes = {
            name: ShapeSpec(channels=_out_channels(getattr(resnet, layer)), stride=stride)
            for name, (layer, stride) in STAGES.items()
        }
        if dilation:
            self._shapes["res5"] = ShapeSpec(channels=self._shapes["res5"].channels, stride=16)
        last_layer, _ = STAGES[self._out_features[-1]]
        self.body = nn.ModuleDict()
        for name, module in resnet.named_children():
            self.body[name] = module
            if name == last_layer:
                break
        self._freeze(freeze_at)

    def _freeze(self, freeze_at: int) -> None:
        parts = [["conv1", "bn1"], *([layer] for layer, _ in STAGES.values())]
        for part in parts[:freeze_at]:
            for name in part:
                if name in self.body:
                    self.body[name].requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """images (B, 3, H, W) -> the feature maps asked for, by name, coarsest last."""
        # A third faster on CPUs, and on GPUs in half precision.
        features, x = {}, images.contiguous(memory_format=torch.channels_last)
        stage_of_layer = {layer: stage for stage, (layer, _) in STAGES.items()}
        for name, module in self.body.items():
            x = module(x)
            if stage_of_layer.get(name) in self._out_features:
                features[stage_of_layer[name]] = x
        return features

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: self._shapes[name] for name in self._out_features}


@BACKBONE_REGISTRY.register()
def build_torchvision_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> TorchvisionResNet:
    """The ResNet that MODEL.RESNETS and MODEL.BACKBONE describe; `input_shape` is Detectron2's, always 3 channels.

    For masks it gives the feature maps that the mask head needs, besides MODEL.RESNETS.OUT_FEATURES.
    """
    resnets = cfg.MODEL.RESNETS
    if resnets.STRIDE_IN_1X1:
        raise InputError(
            "MODEL.RESNETS.STRIDE_IN_1X1: torchvision's ResNets have their stride in the 3x3 convolution; set False"
        )
    return TorchvisionResNet(
        depth=resnets.DEPTH,
        norm=resnets.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        dilation=resnets.RES5_DILATION == 2,
        out_features=tuple({*resnets.OUT_FEATURES, *(PYRAMID if cfg.MODEL.MASK_ON else ())}),
    )


def _check(depth: int, norm: str, freeze_at: int, dilation: bool, out_features: tuple[str, ...]) -> None:
    if depth not in DEPTHS:
        raise InputError(f"MODEL.RESNETS.DEPTH {depth}: torchvision's ResNets have one of {DEPTHS}")
    if norm not in NORMS:
        raise InputError(f"MODEL.RESNETS.NORM {norm!r}: expected one of {', '.join(NORMS)}")
    if norm == "BN" and freeze_at:
        raise InputError(
            f"MODEL.BACKBONE.FREEZE_AT {freeze_at} with MODEL.RESNETS.NORM BN: set FREEZE_AT 0 or FrozenBN"
        )
    if dilation and depth < 50:
        raise InputError(f"MODEL.RESNETS.RES5_DILATION 2 needs DEPTH 50 or 101, not {depth}")
    unknown = sorted(set(out_features) - set(STAGES))
    if unknown or not out_features:
        raise InputError(f"MODEL.RESNETS.OUT_FEATURES {list(out_features)}: expected some of {', '.join(STAGES)}")


def _out_channels(stage: nn.Sequential) -> int:
    last_block = stage[-1]
    return (last_block.conv3 if hasattr(last_block, "conv3") else last_block.conv2).out_channels
