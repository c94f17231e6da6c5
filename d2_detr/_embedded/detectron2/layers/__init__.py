"""Shapes of feature maps."""

from dataclasses import dataclass

from detectron2._missing import missing_attribute

__all__ = ["ShapeSpec"]
__getattr__ = missing_attribute(__name__)


@dataclass
class ShapeSpec:
    """What is known about a feature map; `stride` is relative to the input image."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
