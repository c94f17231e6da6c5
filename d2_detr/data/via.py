"""Annotations of the VGG Image Annotator (VIA) as COCO."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from d2_detr.errors import InputError

Polygon = list[float]  # x0, y0, x1, y1, ... in pixels


def via_to_coco(via: Mapping, category: str, picture_size: Callable[[str], tuple[int, int]], *, source: str) -> dict:
    """Convert VIA annotations, all regions being of one class.

    Args:
        via: the annotations as VIA 1.x or 2.x exports them, one entry for each picture.
        category: name of the class; its category id is 1.
        picture_size: width and height in pixels for a file name.
        source: name of the annotation file, for messages.

    Returns:
        A COCO dataset: pictures in the order of their file names, ids from 1. Boxes are [x, y, width, height] of the
        polygon's extent and areas are the polygon's own (shoelace formula).

    Raises:
        InputError: an entry or a region that is not what VIA writes, or no polygon.
    """
    if not isinstance(via, Mapping):
        raise InputError(f"{source}: holds a {type(via).__name__}, not the entries of the VGG Image Annotator")
    entries = [(str(_field(entry, "filename", f"{source}: {key}")), entry) for key, entry in via.items()]
    images, annotations = [], []
    for file_name, entry in sorted(entries, key=lambda item: item[0]):
        width, height = picture_size(file_name)
        image_id = len(images) + 1
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for number, region in enumerate(_regions(entry, f"{source}: {file_name}")):
            where = f"{source}: {file_name}: region {number}"
            polygon = _polygon(_field(region, "shape_attributes", where), where)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "segmentation": [polygon],
                    "bbox": polygon_box(polygon),
                    "area": polygon_area(polygon),
                    "iscrowd": 0,
                }
            )
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": category}]}


def polygon_area(polygon: Polygon) -> float:
    """Area of a simple polygon in square pixels, by the shoelace formula."""
    x, y = polygon[0::2], polygon[1::2]
    return abs(sum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(len(x)))) / 2


def polygon_box(polygon: Polygon) -> list[float]:
    """Extent of a polygon as [x, y, width, height]."""
    x, y = polygon[0::2], polygon[1::2]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def _regions(entry: Mapping, where: str) -> Iterable[Mapping]:
    """VIA 1.x numbers the regions in a dict, VIA 2.x lists them."""
    regions = entry.get("regions", [])
    if not isinstance(regions, Mapping | list):
        raise InputError(f"{where}: the regions are a {type(regions).__name__}, expected a list or a dict")
    return regions.values() if isinstance(regions, Mapping) else regions


def _polygon(shape: Mapping, where: str) -> Polygon:
    name = _field(shape, "name", where)
    if name != "polygon":
        raise InputError(f"{where}: shape {name!r}; only polygons can be converted")
    x, y = _coordinates(shape, "all_points_x", where), _coordinates(shape, "all_points_y", where)
    if len(x) != len(y) or len(x) < 3:
        raise InputError(
            f"{where}: all_points_x has {len(x)} and all_points_y {len(y)} points; a polygon needs 3 or more"
        )
    return [float(coordinate) for point in zip(x, y, strict=True) for coordinate in point]


def _coordinates(shape: Mapping, name: str, where: str) -> list[float]:
    values = _field(shape, name, where)
    if not isinstance(values, list) or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        raise InputError(f"{where}: {name} is not a list of numbers")
    return values


def _field(entry: Mapping, name: str, where: str):
    if not isinstance(entry, Mapping) or name not in entry:
        raise InputError(f"{where}: no field {name!r}; is this a file of the VGG Image Annotator?")
    return entry[name]
