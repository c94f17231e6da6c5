from abc import ABCMeta, abstractmethod

import torch
from torch import nn

from detectron2.layers import ShapeSpec


class Backbone(nn.Module, metaclass=ABCMeta):
    """Maps images (B, C, H, W) to named feature maps.

    A subclass overrides `output_shape`, or sets `_out_features` and its channels and strides by name.
    """

    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    @abstractmethod
    def forward(self) -> dict[str, torch.Tensor]:
        """Return {feature name, e.g. "res2": map (B, C, H / stride, W / stride)}."""

    @property
    def size_divisibility(self) -> int:
        """Height and width of the input must be multiples of this; 0 where they need not."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Optional "size_divisibility" and "square_size" for `ImageList.from_tensors`."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }
