from dataclasses import dataclass

import torch

from detectron2._missing import missing_attribute

__all__ = ["ShapeSpec", "cat"]


@dataclass
class ShapeSpec:
    """What is known of a feature map before it exists; `stride` is relative to the input image."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None


def cat(tensors: list[torch.Tensor], dim: int = 0) -> torch.Tensor:
    """`torch.cat` that returns a lone tensor as it is, without a copy."""
    assert isinstance(tensors, (list, tuple)), f"cat takes a list of tensors, got {type(tensors)}"
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


__getattr__ = missing_attribute(__name__)
