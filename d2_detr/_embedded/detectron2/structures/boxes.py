"""Boxes of one image, with continuous coordinates: x in [0, width] pixels."""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import TypeVar

import numpy as np
import torch

from detectron2._missing import missing, missing_attribute

__getattr__ = missing_attribute(__name__)

Box = TypeVar("Box", list, tuple, np.ndarray, torch.Tensor)


class BoxMode(IntEnum):
    """Meaning of the four (rotated boxes: five) numbers of a box."""

    XYXY_ABS = 0
    XYWH_ABS = 1
    XYXY_REL = 2
    XYWH_REL = 3
    XYWHA_ABS = 4

    @staticmethod
    def convert(box: Box, from_mode: "BoxMode", to_mode: "BoxMode") -> Box:
        """Convert one box (a list or tuple) or boxes (N, 4), an array or tensor."""
        if from_mode == to_mode:
            return box
        if isinstance(box, (list, tuple)):
            assert len(box) in (4, 5), f"expected a box of 4 numbers (rotated: 5), got {len(box)}"
            return type(box)(BoxMode.convert(torch.tensor(box), from_mode, to_mode).tolist())
        if isinstance(box, np.ndarray):
            return BoxMode.convert(torch.from_numpy(box), from_mode, to_mode).numpy()
        start, end = box[..., :2], box[..., 2:]
        if (from_mode, to_mode) == (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS):
            return torch.cat((start, start + end), dim=-1)
        if (from_mode, to_mode) == (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
            return torch.cat((start, end - start), dim=-1)
        raise NotImplementedError(missing(f"the conversion of boxes from {from_mode!r} to {to_mode!r}"))


class Boxes:
    """Boxes as `tensor` (N, 4), float32, xyxy in pixels."""

    def __init__(self, tensor: torch.Tensor | np.ndarray | Sequence[Sequence[float]]):
        tensor = torch.as_tensor(tensor, dtype=torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 4)
        assert tensor.dim() == 2 and tensor.shape[1] == 4, f"expected boxes (N, 4), got {tuple(tensor.shape)}"
        self.tensor = tensor

    def to(self, device: torch.device | str) -> "Boxes":
        return Boxes(self.tensor.to(device=device))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def area(self) -> torch.Tensor:
        """Return the areas (N,)."""
        return (self.tensor[:, 2:] - self.tensor[:, :2]).prod(dim=1)

    def clip(self, box_size: tuple[int, int]) -> None:
        """Clip the boxes, in place, to an image of size (height, width)."""
        assert torch.isfinite(self.tensor).all(), f"expected finite boxes, got {self.tensor}"
        height, width = box_size
        x, y = self.tensor[:, 0::2].clamp(0, width), self.tensor[:, 1::2].clamp(0, height)
        self.tensor = torch.stack((x, y), dim=2).flatten(1)

    def nonempty(self, threshold: float = 0.0) -> torch.Tensor:
        """Return (N,) bool: whether both sides are longer than `threshold` pixels."""
        return (self.tensor[:, 2:] - self.tensor[:, :2] > threshold).all(dim=1)

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Scale the coordinates, in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    @classmethod
    def cat(cls, boxes_list: list["Boxes"]) -> "Boxes":
        return cls(torch.cat([boxes.tensor for boxes in boxes_list]) if boxes_list else torch.empty(0))

    def __getitem__(self, item: int | slice | torch.Tensor) -> "Boxes":
        """Index like the tensor, but an int returns a single box as (1, 4)."""
        return Boxes(self.tensor[item].reshape(-1, 4) if isinstance(item, int) else self.tensor[item])

    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from self.tensor

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"
