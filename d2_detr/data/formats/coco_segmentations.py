"""Checks of the field `segmentation` of a COCO file.

pycocotools checks nothing: it takes memory in proportion to the outline of a polygon, and decodes an RLE that is too
short from whatever is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from d2_detr.data.formats.coco_sections import all_numbers, shown

# An outline may be this often as long as the border of the image: longer than that of any object, with a margin for
# noise and for what is beyond the image. This takes pycocotools 60 MB; it crashes from 4e8 pixels on.
MAX_OUTLINE = 300
MAX_COUNT = 2**32 - 1  # of pixels, in pycocotools

SizeWH = tuple[int, int]


def segmentation_problem(segmentation: object, size_wh: SizeWH) -> str:
    """Return what is wrong with a `segmentation` and what is expected, or "".

    Args:
        size_wh: width and height of the image in pixels.
    """
    if not segmentation:
        return ""
    if isinstance(segmentation, dict):
        return _rle_problem(segmentation, size_wh)
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        return f"segmentation {shown(segmentation)}, expected a list of polygons [[x0, y0, x1, y1, ...], ...] or an RLE"
    return next(filter(None, (_polygon_problem(polygon, size_wh) for polygon in segmentation)), "")


def outline_problem(polygon: Sequence[float], size_wh: SizeWH) -> str:
    """Return that a polygon is too long for an image and what to do, or ""."""
    limit = 2 * sum(size_wh) * MAX_OUTLINE
    if len(polygon) * (max(polygon) - min(polygon)) <= limit:  # which the outline cannot exceed
        return ""
    x, y = polygon[0::2], polygon[1::2]
    length = sum(math.hypot(x[i] - x[i - 1], y[i] - y[i - 1]) for i in range(len(x)))
    if length <= limit:
        return ""
    return (
        f"the outline of a polygon is {length:.3g} pixels long, more than {MAX_OUTLINE} times the border of the image "
        f"of {size_wh[0]} x {size_wh[1]} pixels; draw it again within the image, or remove it"
    )


def rle_counts(text: str) -> np.ndarray | None:
    """Return the counts of a compressed RLE, int64; None if it is damaged.

    A count has one or more characters of 6 bits, the lowest first: 5 bits of the number, and whether it continues. From
    the fourth on, counts are differences from the last but one.
    """
    try:
        codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - ord("0")
    except UnicodeEncodeError:
        return None
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(~codes & 32)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 7:  # 35 bits, for differences of 32
        return None
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((codes & 31) << shifts, starts)
    numbers -= (codes[ends] >> 4 & 1) << 5 * lengths  # the highest bit is the sign
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def _polygon_problem(polygon: list[Any], size_wh: SizeWH) -> str:
    if not all_numbers(polygon) or len(polygon) % 2:
        return f"segmentation has the polygon {shown(polygon)}, expected pairs of numbers x, y"
    if len(polygon) < 6:
        return f"segmentation has a polygon of {len(polygon) // 2} points; expected three or more"
    if not (0 < polygon[0] < size_wh[0] and 0 < polygon[1] < size_wh[1]):  # its first point is not inside
        x, y = polygon[0::2], polygon[1::2]
        if min(x) >= size_wh[0] or min(y) >= size_wh[1] or max(x) <= 0 or max(y) <= 0:
            return f"segmentation has a polygon outside the image of {size_wh[0]} x {size_wh[1]} pixels; remove it"
    problem = outline_problem(polygon, size_wh)
    return f"segmentation: {problem}" if problem else ""


def _rle_problem(rle: dict[str, Any], size_wh: SizeWH) -> str:
    size_hw, counts = rle.get("size"), rle.get("counts")
    width, height = size_wh
    if not isinstance(counts, str | list) or size_hw != [height, width] or not all(type(s) is int for s in size_hw):
        return (
            f"segmentation is an RLE of size {shown(size_hw)}; expected `counts` and [height, width] {[height, width]}"
        )
    found = rle_counts(counts) if isinstance(counts, str) else _listed_counts(counts)
    if found is None or found.min() < 0 or found.max() > MAX_COUNT:
        return "segmentation is an RLE whose `counts` are damaged; annotate the mask again, or remove it"
    if (total := int(found.sum())) != width * height:
        return (
            f"segmentation is an RLE of {total} pixels, the image has {width} x {height} = {width * height}; annotate "
            "the mask again, or remove it"
        )
    return ""


def _listed_counts(counts: list[Any]) -> np.ndarray | None:
    """Return the counts of an RLE that is not compressed; None if they are no integers of 32 bits."""
    if set(map(type, counts)) != {int} or max(counts) > MAX_COUNT or min(counts) < 0:
        return None
    return np.array(counts, np.int64)
