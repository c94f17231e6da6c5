"""Masks of one image, as bitmaps or as polygons. Letters: N instances, H and W of the image, P points."""

from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import pycocotools.mask as mask_util
import torch

from detectron2._missing import missing, missing_attribute

from .boxes import Boxes


def polygon_area(x: np.ndarray, y: np.ndarray) -> float:
    """Area inside the points (x, y), by the shoelace formula."""
    return 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))


def polygons_to_bitmask(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Draw the union of polygons [x0, y0, x1, y1, ...], in pixels, as a bool mask (height, width)."""
    if len(polygons) == 0:  # pycocotools cannot merge nothing
        return np.zeros((height, width), dtype=bool)
    return mask_util.decode(mask_util.merge(mask_util.frPyObjects(polygons, height, width))).astype(bool)


def _crop_and_resize(self: "BitMasks | PolygonMasks", boxes: torch.Tensor, mask_size: int) -> NoReturn:
    raise NotImplementedError(missing("crop_and_resize of masks, the targets of Mask R-CNN"))


class BitMasks:
    """`tensor` (N, H, W), bool; indexing and `to` work as on the tensor."""

    crop_and_resize = _crop_and_resize

    def __init__(self, tensor: torch.Tensor | np.ndarray):
        tensor = torch.as_tensor(tensor, dtype=torch.bool)
        assert tensor.dim() == 3, f"bit masks must be (N, H, W), got {tuple(tensor.shape)}"
        self.image_size = tensor.shape[1:]
        self.tensor = tensor

    @staticmethod
    def from_polygon_masks(
        polygon_masks: "PolygonMasks | list[list[np.ndarray]]", height: int, width: int
    ) -> "BitMasks":
        masks = [polygons_to_bitmask(polygons, height, width) for polygons in polygon_masks]
        return BitMasks(np.stack(masks) if masks else np.empty((0, height, width)))

    @staticmethod
    def cat(bitmasks_list: list["BitMasks"]) -> "BitMasks":
        assert bitmasks_list, "BitMasks.cat needs at least one BitMasks"
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
        """The tight boxes, on the CPU; all zero for an empty mask."""
        (left, right), (top, bottom) = _span(self.tensor.any(dim=1)), _span(self.tensor.any(dim=2))
        boxes = torch.stack((left, top, right, bottom), dim=1) * self.nonempty()[:, None]
        return Boxes(boxes.cpu())

    def __getitem__(self, item: int | slice | torch.Tensor) -> "BitMasks":
        """An int gives one mask, still as (1, H, W)."""
        selected = self.tensor[item]
        if isinstance(item, int):
            return BitMasks(selected[None])
        assert selected.dim() == 3, f"Indexing BitMasks with {item} gives {tuple(selected.shape)}, not (N, H, W)"
        return BitMasks(selected)

    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from self.tensor

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)})"


def _span(occupied: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First True of each row of (N, L), and one past its last."""
    return occupied.int().argmax(dim=1), occupied.shape[1] - occupied.flip(1).int().argmax(dim=1)


class PolygonMasks:
    """`polygons[i]`: the polygons whose union is instance i, each float64 [x0, y0, x1, y1, ...] in pixels.

    They always live on the CPU: `to` does nothing.
    """

    crop_and_resize = _crop_and_resize

    def __init__(self, polygons: list[list[torch.Tensor | np.ndarray]]):
        if not isinstance(polygons, list) or not all(isinstance(instance, list) for instance in polygons):
            raise ValueError(f"PolygonMasks takes one list of polygons per instance, got {polygons!r:.200}")
        self.polygons = [[_as_polygon(polygon) for polygon in instance] for instance in polygons]

    @staticmethod
    def cat(polymasks_list: list["PolygonMasks"]) -> "PolygonMasks":
        assert polymasks_list, "PolygonMasks.cat needs at least one PolygonMasks"
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
        """The tight boxes; (inf, inf, 0, 0) for an instance without polygons."""
        boxes = torch.zeros(len(self), 4)
        for box, instance in zip(boxes, self.polygons, strict=True):
            points = np.concatenate([np.empty(0), *instance]).reshape(-1, 2)
            box[:2] = torch.from_numpy(points.min(axis=0, initial=np.inf))
            box[2:] = torch.from_numpy(points.max(axis=0, initial=0))
        return Boxes(boxes)

    def area(self) -> torch.Tensor:
        """(N,) sums of the polygons' areas; where polygons overlap, the overlap counts twice."""
        return torch.tensor([sum(polygon_area(p[0::2], p[1::2]) for p in instance) for instance in self.polygons])

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


__getattr__ = missing_attribute(__name__)
