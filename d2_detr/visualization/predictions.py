"""Drawings of predictions, and of several views of an image side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from d2_detr.structures.detections import Detections
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import atomic_write
from d2_detr.visualization.colors import GRAY, class_colors
from d2_detr.visualization.drawing import draw_detections, resize_detections
from d2_detr.visualization.text import font_for, shorten

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
MIN_DRAWING_SIDE = 640  # pixels; smaller images are enlarged to it, so that labels are readable
MAX_DRAWING_SIDE = 65_500  # pixels; larger images are reduced to it, because a JPEG cannot be larger
VIEW_SIDE = 384  # pixels of a view among many
MARGIN = 6  # pixels around it
FONT_SIZE = 12


class View(NamedTuple):
    """The objects to draw on an image: its ground truth, or the predictions of a model."""

    title: str
    detections: Detections
    class_names: Sequence[str]


class Comparison(NamedTuple):
    """An image (H, W, 3), RGB, uint8, and its views."""

    title: str
    image: np.ndarray
    views: Sequence[View]


def save_drawing(image: np.ndarray, detections: Detections, class_names: Sequence[str], path: Path) -> None:
    """Write an image (H, W, 3), RGB, uint8, with the objects in it.

    Raises:
        InputError: the suffix is not one of FORMATS.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: cannot write a drawing in this format; use one of {', '.join(FORMATS)}")
    drawn = Image.fromarray(image)
    side = min(max(*drawn.size, MIN_DRAWING_SIDE), MAX_DRAWING_SIDE)
    if side != max(drawn.size):
        size_wh = _resized_wh(drawn, side)
        drawn, detections = drawn.resize(size_wh), resize_detections(detections, drawn.size, size_wh)
    draw_detections(drawn, detections, class_names, class_colors(class_names))
    _save(drawn, path)


def save_comparisons(
    comparisons: Sequence[Comparison], path: Path, *, columns: int = 1, view_side: int = VIEW_SIDE
) -> None:
    """Write an image of comparisons with the same number of views, in rows of `columns`.

    A class has the same color in all views, whatever its index there.

    Args:
        view_side: side of the square around a view, in pixels.
    """
    names = [name for comparison in comparisons for view in comparison.views for name in view.class_names]
    colors = class_colors(names)
    tiles = [_draw_tile(resize_comparison(c, view_side - 2 * MARGIN), colors, view_side) for c in comparisons]
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    canvas = Image.new("RGB", (tiles[0].width * min(columns, len(tiles)), sum(heights)), "white")
    draw = ImageDraw.Draw(canvas)
    for row, tiles_of_row in enumerate(rows):
        for column, tile in enumerate(tiles_of_row):
            x, y = column * tile.width, sum(heights[:row])
            canvas.paste(tile, (x, y))
            draw.rectangle((x, y, x + tile.width - 1, y + heights[row] - 1), outline=GRAY)
    _save(canvas, path)


def resize_comparison(comparison: Comparison, longer_side: int) -> Comparison:
    """Resize the image and its objects to a longer side in pixels."""
    image = Image.fromarray(comparison.image)
    size_wh = _resized_wh(image, longer_side)
    views = [v._replace(detections=resize_detections(v.detections, image.size, size_wh)) for v in comparison.views]
    return comparison._replace(image=np.asarray(image.resize(size_wh, reducing_gap=2)), views=views)


def _draw_tile(comparison: Comparison, colors: dict[str, str], view_side: int) -> Image.Image:
    """Draw the views of a comparison side by side, with titles above them."""
    views, line = comparison.views, FONT_SIZE + MARGIN
    image = Image.fromarray(comparison.image)
    tile = Image.new("RGB", (view_side * len(views), 2 * line + image.height + 2 * MARGIN), "white")
    draw = ImageDraw.Draw(tile)
    _draw_title(draw, comparison.title, 0, MARGIN, tile.width)
    for i, view in enumerate(views):
        drawn = image.copy()
        # The name of the only class would tell nothing and hide something.
        draw_detections(drawn, view.detections, view.class_names, colors, named=len(colors) > 1)
        x = i * view_side
        _draw_title(draw, f"{view.title}: {len(view.detections.classes)}", x, MARGIN + line, view_side)
        tile.paste(drawn, (x + (view_side - drawn.width) // 2, MARGIN + 2 * line))
    return tile


def _draw_title(draw: ImageDraw.ImageDraw, text: str, x: int, y: int, width: int) -> None:
    font = font_for(text, FONT_SIZE)
    draw.text((x + width / 2, y), shorten(text, font, width - 2 * MARGIN), "black", font, anchor="ma")


def _resized_wh(image: Image.Image, longer_side: int) -> tuple[int, int]:
    scale = longer_side / max(image.size)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def _save(image: Image.Image, path: Path) -> None:
    with atomic_write(path) as temporary:
        image.save(temporary, FORMATS[path.suffix.lower()], quality=90)
