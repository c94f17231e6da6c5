"""Drawings of the attention of DETR, as in figures 3 and 6 of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from d2_detr.structures.attention import Attention
from d2_detr.structures.detections import Detections
from d2_detr.visualization.colors import PALETTE
from d2_detr.visualization.figures import literal

Point = tuple[float, float]  # x, y in [0, 1] of the image

POINTS: tuple[Point, ...] = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
LONGER_SIDE = 512  # pixels of the drawn image


def draw_attention(
    image: np.ndarray,
    attention: Attention,
    detections: Detections,
    queries: Sequence[int],
    class_names: Sequence[str],
    *,
    points: Sequence[Point] = POINTS,
) -> Figure:
    """Draw the encoder's attention from points, and below it the decoder's attention for each object.

    Args:
        image: (H, W, 3), RGB, uint8.
        detections, queries: the predictions for the image, and the query of each.
        points: x, y in [0, 1] of the image.
    """
    small = Image.fromarray(image)
    small.thumbnail((LONGER_SIDE, LONGER_SIDE))
    scale = small.width / image.shape[1]
    image = np.asarray(small)
    columns = 1 + max(len(points), 4)
    rows = 1 + -(-len(queries) // columns)
    height = 3.2 * image.shape[0] / image.shape[1]
    figure = Figure(figsize=(3.2 * columns, (height + 0.35) * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    _draw_points(grid[0, 0], image, points)
    for i, (axes, point) in enumerate(zip(grid[0, 1:], points, strict=False)):
        _draw_map(axes, image, attention.from_point(*point))
        _draw_point(axes, image, point, PALETTE[i % len(PALETTE)])
        axes.set_title(f"encoder, from point {i + 1}", fontsize=8)
    assert detections.scores is not None
    objects = zip(queries, detections.boxes_xyxy, detections.classes, detections.scores, strict=True)
    for axes, (query, box, label, score) in zip(grid[1:].flat, objects, strict=False):
        _draw_map(axes, image, attention.decoder[query])
        x0, y0, x1, y1 = box * scale
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="white", linewidth=1.5))
        axes.set_title(literal(f"decoder, query {query}: {class_names[label]} {score:.2f}"), fontsize=8)
    return figure


def _draw_points(axes: Axes, image: np.ndarray, points: Sequence[Point]) -> None:
    axes.imshow(image)
    outline = [withStroke(linewidth=2, foreground="black")]
    for i, point in enumerate(points):
        x, y = _draw_point(axes, image, point, PALETTE[i % len(PALETTE)])
        text = axes.annotate(str(i + 1), (x, y), (5, 5), textcoords="offset points", color="white", fontsize=9)
        text.set(weight="bold", path_effects=outline)
    axes.set_title("points", fontsize=8)


def _draw_point(axes: Axes, image: np.ndarray, point: Point, color: str) -> Point:
    """Mark a point; return x, y in pixels."""
    x, y = point[0] * image.shape[1], point[1] * image.shape[0]
    axes.plot(x, y, "o", color=color, markeredgecolor="white", markersize=7)
    return x, y


def _draw_map(axes: Axes, image: np.ndarray, weights: np.ndarray) -> None:
    """Draw the image, bright where the weights (h, w) are large, cell by cell."""
    height, width = image.shape[:2]
    axes.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=255)
    # A single cell can have nearly all of the weight; the square root shows the others, too.
    enlarged = Image.fromarray(np.sqrt(weights, dtype=np.float32)).resize((width, height), Image.Resampling.NEAREST)
    axes.imshow(np.asarray(enlarged), cmap="inferno", alpha=0.65)
