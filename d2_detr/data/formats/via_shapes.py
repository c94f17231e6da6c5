"""Shapes of the VGG Image Annotator (VIA) as COCO needs them: polygon, box and area."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from d2_detr.utils.errors import InputError

Polygon = list[float]  # x0, y0, x1, y1, ... in pixels

NUM_VERTICES = 72  # of an ellipse: the polygon in it is at most 0.1 % of its size away from it
MOST_PIXELS = 1e9  # what is larger is a slip, and its square no number
LEAST_AREA = 1e-6  # square pixels; less is what rounding makes of the area of a line
REMEDY = "draw the region anew, or remove it"


class Outline(NamedTuple):
    """A shape in pixels. Box [x, y, width, height] and area are exact also where the polygon approximates a curve."""

    polygon: Polygon
    box: list[float]
    area: float


def outline(shape: Mapping, where: str) -> Outline:
    """Outline of the `shape_attributes` of a region. It may stick out of the picture.

    Args:
        where: file, picture and region, for messages.

    Raises:
        InputError: a shape that has no area, or of which a field is missing or not a finite number.
    """
    name = field(shape, "name", where)
    if name not in tuple(_SHAPES):
        raise InputError(f"{where}: shape {name!r}, expected {', '.join(_SHAPES)}; {REMEDY}")
    return _SHAPES[name](shape, where)


def field(entry: Any, name: str, where: str) -> Any:
    """The value of a field that must be there."""
    if not isinstance(entry, Mapping) or name not in entry:
        raise InputError(f"{where}: no field {name!r}; is this a file of the VGG Image Annotator?")
    return entry[name]


def polygon_area(polygon: Polygon) -> float:
    """Area of a simple polygon in square pixels, by the shoelace formula."""
    x, y = polygon[0::2], polygon[1::2]
    return abs(sum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(len(x)))) / 2


def polygon_box(polygon: Polygon) -> list[float]:
    """Extent of a polygon as [x, y, width, height]."""
    x, y = polygon[0::2], polygon[1::2]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def ellipse_outline(cx: float, cy: float, rx: float, ry: float, theta: float = 0.0) -> Outline:
    """Outline of an ellipse; its radius `rx` lies `theta` radians from the x axis, turned towards y, which is down."""
    cos, sin = math.cos(theta), math.sin(theta)
    polygon = []
    for i in range(NUM_VERTICES):
        angle = 2 * math.pi * i / NUM_VERTICES
        x, y = rx * math.cos(angle), ry * math.sin(angle)
        polygon += [cx + x * cos - y * sin, cy + x * sin + y * cos]
    half_width, half_height = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    return Outline(polygon, [cx - half_width, cy - half_height, 2 * half_width, 2 * half_height], math.pi * rx * ry)


def _polygon(shape: Mapping, where: str) -> Outline:
    """A polyline too: its last point is taken to be joined with its first."""
    x, y = _coordinates(shape, "all_points_x", where), _coordinates(shape, "all_points_y", where)
    if len(x) != len(y) or len(x) < 3:
        raise InputError(
            f"{where}: all_points_x has {len(x)} and all_points_y {len(y)} points, expected 3 or more; {REMEDY}"
        )
    polygon = [coordinate for point in zip(x, y, strict=True) for coordinate in point]
    area = polygon_area(polygon)
    if area < LEAST_AREA:
        raise InputError(f"{where}: all_points_x and all_points_y enclose no area; {REMEDY}")
    return Outline(polygon, polygon_box(polygon), area)


def _rect(shape: Mapping, where: str) -> Outline:
    x, y = _number(shape, "x", where), _number(shape, "y", where)
    width, height = _positive(shape, "width", where), _positive(shape, "height", where)
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return Outline(corners, [x, y, width, height], width * height)


def _circle(shape: Mapping, where: str) -> Outline:
    radius = _positive(shape, "r", where)
    return ellipse_outline(_number(shape, "cx", where), _number(shape, "cy", where), radius, radius)


def _ellipse(shape: Mapping, where: str) -> Outline:
    centre = _number(shape, "cx", where), _number(shape, "cy", where)
    radii = _positive(shape, "rx", where), _positive(shape, "ry", where)
    theta = _number(shape, "theta", where) if "theta" in shape else 0.0  # older versions do not turn ellipses
    return ellipse_outline(*centre, *radii, theta)


_SHAPES = {"polygon": _polygon, "rect": _rect, "circle": _circle, "ellipse": _ellipse, "polyline": _polygon}


def _coordinates(shape: Mapping, name: str, where: str) -> list[float]:
    values = field(shape, name, where)
    if not isinstance(values, list) or not all(map(_is_number, values)):
        raise InputError(f"{where}: {name} is not a list of numbers; {REMEDY}")
    return [float(value) for value in values]


def _positive(shape: Mapping, name: str, where: str) -> float:
    value = _number(shape, name, where)
    if value <= 0:
        raise InputError(f"{where}: {name} is {value:g}, expected more than 0; {REMEDY}")
    return value


def _number(shape: Mapping, name: str, where: str) -> float:
    value = field(shape, name, where)
    if not _is_number(value):
        raise InputError(f"{where}: {name} is {value!r:.40}, expected a number; {REMEDY}")
    return float(value)


def _is_number(value: Any) -> bool:
    """Whether a value of JSON is a finite number (NaN compares as False)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST_PIXELS
