"""Registries of models and backbones, and how they are built from a config."""

from abc import ABCMeta, abstractmethod
from typing import Any

import torch
from fvcore.common.registry import Registry
from torch import nn

from detectron2._missing import missing, missing_attribute
from detectron2.config import CfgNode
from detectron2.config.config import warn_unread
from detectron2.layers import ShapeSpec

__all__ = ["BACKBONE_REGISTRY", "META_ARCH_REGISTRY", "Backbone", "build_backbone", "build_model"]
__getattr__ = missing_attribute(__name__)

META_ARCH_REGISTRY = Registry("META_ARCH")  # callables (cfg) -> nn.Module
BACKBONE_REGISTRY = Registry("BACKBONE")  # callables (cfg, input_shape: ShapeSpec) -> Backbone


class Backbone(nn.Module, metaclass=ABCMeta):
    """Map images (B, C, H, W) to named feature maps (B, C', H / stride, W / stride).

    Subclasses override `output_shape`, or set the attributes `_out_*`.
    """

    size_divisibility = 0  # height and width of the input must be multiples of it; 0: no restriction
    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]: ...

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
    """Build `cfg.MODEL.BACKBONE.NAME`, by default for the channels of PIXEL_MEAN."""
    name = cfg.MODEL.BACKBONE.NAME
    if name not in BACKBONE_REGISTRY:
        raise KeyError(missing(f"the backbone {name!r} (registered: {list(dict(BACKBONE_REGISTRY))})"))
    backbone = BACKBONE_REGISTRY.get(name)(cfg, input_shape or ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN)))
    assert isinstance(backbone, Backbone), f"{name}: expected it to build a Backbone, got {type(backbone)}"
    return backbone


def build_model(cfg: CfgNode) -> nn.Module:
    """Build `cfg.MODEL.META_ARCHITECTURE` on `cfg.MODEL.DEVICE`, without its weights."""
    warn_unread(cfg)
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in META_ARCH_REGISTRY:
        raise KeyError(missing(f"the meta-architecture {name!r} (registered: {list(dict(META_ARCH_REGISTRY))})"))
    return META_ARCH_REGISTRY.get(name)(cfg).to(torch.device(cfg.MODEL.DEVICE))
