"""Masks of one image, as bitmaps or as polygons. Letters: N instances, H and W of the image, P points."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from torchvision.ops import masks_to_boxes

from .boxes import Boxes


def polygons_to_bitmask(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Draw the union of polygons [x0, y0, x1, y1, ...], in pixels, as a bool mask (height, width)."""
    if len(polygons) == 0:  # pycocotools cannot merge nothing
        return np.zeros((height, width), dtype=bool)
    return mask_util.decode(mask_util.merge(mask_util.frPyObjects(polygons, height, width))).astype(bool)


class BitMasks:
    """`tensor` (N, H, W), bool; indexing and `to` work as on the tensor."""

    def __init__(self, tensor: torch.Tensor | np.ndarray):
        tensor = torch.as_tensor(tensor, dtype=torch.bool)
        assert tensor.dim() == 3, f"bit masks must be (N, H, W), got {tuple(tensor.shape)}"
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
        """(N,) bool"""
        return self.tensor.flatten(1).any(dim=1)

    def get_bounding_boxes(self) -> Boxes:
        """The tightest boxes; that of an empty mask is all 0."""
        boxes, drawn = torch.zeros(len(self), 4), self.nonempty().cpu()
        boxes[drawn] = masks_to_boxes(self.tensor.cpu()[drawn]) + torch.tensor([0.0, 0, 1, 1])  # whole pixels
        return Boxes(boxes)

    def __getitem__(self, item: int | slice | torch.Tensor) -> "BitMasks":
        """An int gives one mask, still as (1, H, W)."""
        return BitMasks(self.tensor[item][None] if isinstance(item, int) else self.tensor[item])

    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from self.tensor

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)})"


class PolygonMasks:
    """`polygons[i]`: the polygons whose union is instance i, each float64 [x0, y0, x1, y1, ...] in pixels.

    They always live on the CPU: `to` does nothing.
    """

    def __init__(self, polygons: list[list[torch.Tensor | np.ndarray]]):
        if not isinstance(polygons, list) or not all(isinstance(instance, list) for instance in polygons):
            raise ValueError(f"PolygonMasks takes one list of polygons per instance, got {polygons!r:.200}")
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
        """(N,) bool, True where an instance has a polygon."""
        return torch.tensor([len(instance) > 0 for instance in self.polygons], dtype=torch.bool)

    def get_bounding_boxes(self) -> Boxes:
        """The tightest boxes; that of an instance without polygons is (inf, inf, 0, 0)."""
        points = [np.concatenate([[], *instance]).reshape(-1, 2) for instance in self.polygons]
        return Boxes(np.array([[*xy.min(0, initial=np.inf), *xy.max(0, initial=0)] for xy in points]))

    def area(self) -> torch.Tensor:
        """(N,) sums of the polygons' areas; where polygons overlap, the overlap counts twice."""
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
        raise ValueError(f"A polygon has at least 3 points, x and y in turn; got {len(polygon)} numbers")
    return polygon


def _area(x: np.ndarray, y: np.ndarray) -> float:
    """Of the polygon with the points (x, y), by the shoelace formula."""
    return 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
