"""Shapes of the VGG Image Annotator (VIA) in COCO's terms: polygon, box and area."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from d2_detr.data.formats.coco_sections import is_number, shown
from d2_detr.utils.errors import InputError

Polygon = list[float]  # x0, y0, x1, y1, ... in pixels

NUM_VERTICES = 72  # of the polygon in an ellipse, which deviates from it by at most 0.1 % of its size
MIN_AREA = 1e-6  # square pixels; the rounded area of a line is smaller
REMEDY = "draw the region again, or remove it"


class Outline(NamedTuple):
    """A shape in pixels, with box [x, y, width, height].

    Box and area are exact even if the polygon approximates a curve.
    """

    polygon: Polygon
    box: list[float]
    area: float


def outline(shape: Any, where: str) -> Outline:
    """Return the outline of a region, which may extend beyond the image.

    Args:
        shape: the `shape_attributes` of the region.
        where: file, image and region, for messages.

    Raises:
        InputError: the shape has no area, or a field is missing or not a finite number.
    """
    name = required_field(shape, "name", where)
    if name not in tuple(_SHAPES):
        raise InputError(f"{where}: shape {shown(name)}, expected {', '.join(_SHAPES)}; {REMEDY}")
    return _SHAPES[name](shape, where)


def required_field(entry: Any, name: str, where: str) -> Any:
    """Return a field of an entry.

    Raises:
        InputError: the field is missing, or the entry is not an object.
    """
    if not isinstance(entry, Mapping) or name not in entry:
        raise InputError(f"{where}: no field {name!r}; is this a file of the VGG Image Annotator?")
    return entry[name]


def polygon_area(polygon: Polygon) -> float:
    """Return the area of a simple polygon in square pixels (shoelace formula)."""
    x, y = polygon[0::2], polygon[1::2]
    return abs(sum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(len(x)))) / 2


def polygon_box(polygon: Polygon) -> list[float]:
    """Return the bounding box [x, y, width, height] of a polygon."""
    x, y = polygon[0::2], polygon[1::2]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def ellipse_outline(cx: float, cy: float, rx: float, ry: float, theta: float = 0.0) -> Outline:
    """Return the outline of an ellipse.

    Args:
        cx, cy: center in pixels.
        rx, ry: radii in pixels.
        theta: angle in radians from the x axis to `rx`, positive toward the y axis, which points down.
    """
    cos, sin = math.cos(theta), math.sin(theta)
    polygon = []
    for i in range(NUM_VERTICES):
        angle = 2 * math.pi * i / NUM_VERTICES
        x, y = rx * math.cos(angle), ry * math.sin(angle)
        polygon += [cx + x * cos - y * sin, cy + x * sin + y * cos]
    half_width, half_height = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    return Outline(polygon, [cx - half_width, cy - half_height, 2 * half_width, 2 * half_height], math.pi * rx * ry)


def _polygon(shape: Mapping[str, Any], where: str) -> Outline:
    """Return the outline of a polygon, or of a polyline, which is closed."""
    x, y = _coordinates(shape, "all_points_x", where), _coordinates(shape, "all_points_y", where)
    if len(x) != len(y) or len(x) < 3:
        raise InputError(
            f"{where}: all_points_x has {len(x)} and all_points_y {len(y)} points, expected 3 or more; {REMEDY}"
        )
    polygon = [coordinate for point in zip(x, y, strict=True) for coordinate in point]
    area = polygon_area(polygon)
    if area < MIN_AREA:
        raise InputError(f"{where}: all_points_x and all_points_y enclose no area; {REMEDY}")
    return Outline(polygon, polygon_box(polygon), area)


def _rect(shape: Mapping[str, Any], where: str) -> Outline:
    x, y = _number(shape, "x", where), _number(shape, "y", where)
    width, height = _positive(shape, "width", where), _positive(shape, "height", where)
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return Outline(corners, [x, y, width, height], width * height)


def _circle(shape: Mapping[str, Any], where: str) -> Outline:
    radius = _positive(shape, "r", where)
    return ellipse_outline(_number(shape, "cx", where), _number(shape, "cy", where), radius, radius)


def _ellipse(shape: Mapping[str, Any], where: str) -> Outline:
    center = _number(shape, "cx", where), _number(shape, "cy", where)
    radii = _positive(shape, "rx", where), _positive(shape, "ry", where)
    theta = _number(shape, "theta", where) if "theta" in shape else 0.0  # older versions do not rotate ellipses
    return ellipse_outline(*center, *radii, theta)


_SHAPES = {"polygon": _polygon, "rect": _rect, "circle": _circle, "ellipse": _ellipse, "polyline": _polygon}


def _coordinates(shape: Mapping[str, Any], name: str, where: str) -> list[float]:
    values = required_field(shape, name, where)
    if not isinstance(values, list) or not all(map(is_number, values)):
        raise InputError(f"{where}: {name} is not a list of numbers; {REMEDY}")
    return [float(value) for value in values]


def _positive(shape: Mapping[str, Any], name: str, where: str) -> float:
    value = _number(shape, name, where)
    if value <= 0:
        raise InputError(f"{where}: {name} is {value:g}, expected more than 0; {REMEDY}")
    return value


def _number(shape: Mapping[str, Any], name: str, where: str) -> float:
    value = required_field(shape, name, where)
    if not is_number(value):
        raise InputError(f"{where}: {name} is {shown(value)}, expected a number; {REMEDY}")
    return float(value)
