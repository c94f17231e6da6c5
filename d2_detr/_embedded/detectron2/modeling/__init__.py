"""Models and backbones are built by the names that they are registered under."""

from abc import ABCMeta, abstractmethod

import torch
from fvcore.common.registry import Registry
from torch import nn

from detectron2._missing import missing
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec

__all__ = ["BACKBONE_REGISTRY", "META_ARCH_REGISTRY", "Backbone", "build_backbone", "build_model"]

META_ARCH_REGISTRY = Registry("META_ARCH")  # callables (cfg) -> nn.Module
BACKBONE_REGISTRY = Registry("BACKBONE")  # callables (cfg, input_shape: ShapeSpec) -> Backbone


class Backbone(nn.Module, metaclass=ABCMeta):
    """Maps images (B, C, H, W) to feature maps by name, e.g. {"res2": (B, C, H / stride, W / stride)}.

    A subclass overrides `output_shape`, or sets the attributes that it reads.
    """

    size_divisibility = 0  # the sides of its input must be multiples of this; 0: any will do

    @abstractmethod
    def forward(self) -> dict[str, torch.Tensor]: ...

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
    """Build `cfg.MODEL.BACKBONE.NAME`; the input has as many channels as PIXEL_MEAN unless told otherwise."""
    name = cfg.MODEL.BACKBONE.NAME
    if name not in BACKBONE_REGISTRY:
        raise KeyError(missing(f"the backbone {name!r} (it has {list(dict(BACKBONE_REGISTRY))})"))
    backbone = BACKBONE_REGISTRY.get(name)(cfg, input_shape or ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN)))
    assert isinstance(backbone, Backbone), f"{name} built a {type(backbone)}, not a Backbone"
    return backbone


def build_model(cfg: CfgNode) -> nn.Module:
    """Build `cfg.MODEL.META_ARCHITECTURE` on `cfg.MODEL.DEVICE`, without its weights."""
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in META_ARCH_REGISTRY:
        raise KeyError(missing(f"the meta-architecture {name!r} (it has {list(dict(META_ARCH_REGISTRY))})"))
    return META_ARCH_REGISTRY.get(name)(cfg).to(torch.device(cfg.MODEL.DEVICE))
