"""Masks of the N instances of an image of H x W pixels, as bitmaps or polygons."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from torchvision.ops import masks_to_boxes

from .boxes import Boxes


def polygons_to_bitmask(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Rasterize a union of polygons [x0, y0, x1, y1, ...] to (height, width), bool."""
    if len(polygons) == 0:  # pycocotools cannot merge an empty list
        return np.zeros((height, width), dtype=bool)
    return mask_util.decode(mask_util.merge(mask_util.frPyObjects(polygons, height, width))).astype(bool)


class BitMasks:
    """Masks as `tensor` (N, H, W), bool."""

    def __init__(self, tensor: torch.Tensor | np.ndarray):
        tensor = torch.as_tensor(tensor, dtype=torch.bool)
        assert tensor.dim() == 3, f"expected masks (N, H, W), got {tuple(tensor.shape)}"
        self.image_size = tensor.shape[1:]
        self.tensor = tensor

    @staticmethod
    def from_polygon_masks(polygon_masks: "PolygonMasks | list[list]", height: int, width: int) -> "BitMasks":
        masks = [polygons_to_bitmask(instance, height, width) for instance in polygon_masks]
        return BitMasks(np.array(masks, dtype=bool).reshape(-1, height, width))

    @staticmethod
    def cat(bitmasks_list: list["BitMasks"]) -> "BitMasks":
        return BitMasks(torch.cat([masks.tensor for masks in bitmasks_list]))

    def to(self, *args: Any, **kwargs: Any) -> "BitMasks":
        return BitMasks(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def nonempty(self) -> torch.Tensor:
        """Return (N,) bool: whether a mask has any pixel."""
        return self.tensor.flatten(1).any(dim=1)

    def get_bounding_boxes(self) -> Boxes:
        """Return the tightest boxes around the pixels, (0, 0, 0, 0) for an empty mask."""
        boxes, nonempty = torch.zeros(len(self), 4), self.nonempty().cpu()
        boxes[nonempty] = masks_to_boxes(self.tensor.cpu()[nonempty]) + torch.tensor([0.0, 0, 1, 1])  # whole pixels
        return Boxes(boxes)

    def __getitem__(self, item: int | slice | torch.Tensor) -> "BitMasks":
        """Index like the tensor, but an int returns a single mask as (1, H, W)."""
        return BitMasks(self.tensor[item][None] if isinstance(item, int) else self.tensor[item])

    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from self.tensor

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)})"


class PolygonMasks:
    """Masks as polygons on the CPU: instance i is the union of `polygons[i]`.

    Each polygon is an array [x0, y0, x1, y1, ...], float64, in pixels.
    """

    def __init__(self, polygons: Sequence[Sequence[torch.Tensor | np.ndarray]]):
        if not isinstance(polygons, list) or not all(isinstance(instance, list) for instance in polygons):
            raise ValueError(f"expected one list of polygons per instance, got {polygons!r:.200}")
        self.polygons = [[_as_polygon(polygon) for polygon in instance] for instance in polygons]

    @staticmethod
    def cat(polymasks_list: list["PolygonMasks"]) -> "PolygonMasks":
        return PolygonMasks([instance for masks in polymasks_list for instance in masks])

    def to(self, *args: Any, **kwargs: Any) -> "PolygonMasks":
        return self

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def nonempty(self) -> torch.Tensor:
        """Return (N,) bool: whether an instance has any polygon."""
        return torch.tensor([len(instance) > 0 for instance in self.polygons], dtype=torch.bool)

    def get_bounding_boxes(self) -> Boxes:
        """Return the tightest boxes, (inf, inf, 0, 0) for an instance without polygons."""
        points = [np.concatenate([[], *instance]).reshape(-1, 2) for instance in self.polygons]
        return Boxes(np.array([[*xy.min(0, initial=np.inf), *xy.max(0, initial=0)] for xy in points]))

    def area(self) -> torch.Tensor:
        """Return (N,) sums of the polygons' areas, which count overlaps twice."""
        return torch.tensor([sum(_area(p[0::2], p[1::2]) for p in instance) for instance in self.polygons])

    def __getitem__(self, item: int | slice | list[int] | torch.Tensor) -> "PolygonMasks":
        if isinstance(item, slice):
            return PolygonMasks(self.polygons[item])
        if isinstance(item, torch.Tensor):
            item = (item.nonzero().flatten() if item.dtype == torch.bool else item).tolist()
        return PolygonMasks([self.polygons[i] for i in ([item] if isinstance(item, int) else item)])

    def __len__(self) -> int:
        return len(self.polygons)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return iter(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"


def _as_polygon(coordinates: torch.Tensor | np.ndarray) -> np.ndarray:
    polygon = np.asarray(coordinates.cpu() if isinstance(coordinates, torch.Tensor) else coordinates, dtype=np.float64)
    if len(polygon) % 2 or len(polygon) < 6:
        raise ValueError(f"expected a polygon [x0, y0, x1, y1, ...] of at least 3 points, got {len(polygon)} numbers")
    return polygon


def _area(x: np.ndarray, y: np.ndarray) -> float:
    """Return the area of the polygon with vertices (x, y), by the shoelace formula."""
    return 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
