"""Where DETR looks: from a point of the picture to others (encoder), from an object to the picture (decoder).

As the figures 3 and 6 of the paper show it, for the last layer of each and the mean of its heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor, nn

from d2_detr.modeling.transformer import Transformer
from d2_detr.structures.detections import Detections
from d2_detr.visualization.figures import literal
from d2_detr.visualization.predictions import COLOURS

# Where the encoder is looked at when nothing else is asked for: x, y in [0, 1] of the picture.
POINTS = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))

LONGER_SIDE = 512  # pixels of a picture that is drawn, more than anybody sees of it


class Attention(NamedTuple):
    """Of one picture, on the h x w cells of its feature map; the weights from one place sum to 1."""

    encoder: np.ndarray  # (h, w, h, w): from a cell to the cells
    decoder: np.ndarray  # (Q, h, w): from a query to the cells

    def from_point(self, x: float, y: float) -> np.ndarray:
        """(h, w): from the cell of the point x, y in [0, 1] of the picture."""
        height, width = self.encoder.shape[:2]
        return self.encoder[min(int(y * height), height - 1), min(int(x * width), width - 1)]


@contextmanager
def recording(transformer: Transformer) -> Iterator[list[Attention]]:
    """While this is open, every forward pass of a single picture adds the attention of it to a list."""
    found: list[Attention] = []
    weights: dict[str, Tensor] = {}
    watched = {
        "encoder": transformer.encoder.layers[-1].self_attn,
        "decoder": transformer.decoder.layers[-1].multihead_attn,
    }

    def ask(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return args, kwargs | {"need_weights": True, "average_attn_weights": True}

    def finish(module: nn.Module, args: tuple, outputs: tuple[Tensor, Tensor]) -> None:
        height, width = outputs[1].shape[-2:]
        encoder, decoder = (weights[name].float().cpu().numpy() for name in ("encoder", "decoder"))
        found.append(Attention(encoder[0].reshape(height, width, height, width), decoder[0].reshape(-1, height, width)))

    handles = [transformer.register_forward_hook(finish)]
    for name, module in watched.items():
        handles.append(module.register_forward_pre_hook(ask, with_kwargs=True))
        handles.append(module.register_forward_hook(lambda _, __, out, name=name: weights.update({name: out[1][:1]})))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def draw_attention(
    picture: np.ndarray,
    attention: Attention,
    objects: Detections,
    queries: Sequence[int],
    class_names: Sequence[str],
    *,
    points: Sequence[tuple[float, float]] = POINTS,
) -> Figure:
    """The picture with the points and what the encoder attends to from each, and below it what the decoder attends to
    for each object.

    Args:
        picture: (H, W, 3), uint8, RGB.
        objects, queries: what was found, and the query of each.
        points: x, y in [0, 1] of the picture.
    """
    small = Image.fromarray(picture)
    small.thumbnail((LONGER_SIDE, LONGER_SIDE))
    scale = small.width / picture.shape[1]
    picture = np.asarray(small)
    columns = 1 + max(len(points), 4)
    rows = 1 + -(-len(queries) // columns)
    height = 3.2 * picture.shape[0] / picture.shape[1]
    figure = Figure(figsize=(3.2 * columns, (height + 0.35) * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    _draw_points(grid[0, 0], picture, points)
    for i, (axes, point) in enumerate(zip(grid[0, 1:], points, strict=False)):
        _draw_map(axes, picture, attention.from_point(*point))
        _mark(axes, picture, point, COLOURS[i % len(COLOURS)])
        axes.set_title(f"encoder, from point {i + 1}", fontsize=8)
    for axes, query, box, label, score in zip(
        grid[1:].flat, queries, objects.boxes_xyxy, objects.classes, objects.scores, strict=False
    ):
        _draw_map(axes, picture, attention.decoder[query])
        x0, y0, x1, y1 = box * scale
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="white", linewidth=1.5))
        axes.set_title(literal(f"decoder, query {query}: {class_names[label]} {score:.2f}"), fontsize=8)
    return figure


def _draw_points(axes: Axes, picture: np.ndarray, points: Sequence[tuple[float, float]]) -> None:
    axes.imshow(picture)
    for i, point in enumerate(points):
        _mark(axes, picture, point, COLOURS[i % len(COLOURS)])
        x, y = point[0] * picture.shape[1], point[1] * picture.shape[0]
        style = {
            "color": "white",
            "fontsize": 9,
            "weight": "bold",
            "path_effects": [withStroke(linewidth=2, foreground="black")],
        }
        axes.annotate(str(i + 1), (x, y), (5, 5), textcoords="offset points", **style)
    axes.set_title("points", fontsize=8)


def _mark(axes: Axes, picture: np.ndarray, point: tuple[float, float], colour: str) -> None:
    x, y = point[0] * picture.shape[1], point[1] * picture.shape[0]
    axes.plot(x, y, "o", color=colour, markeredgecolor="white", markersize=7)


def _draw_map(axes: Axes, picture: np.ndarray, weights: np.ndarray) -> None:
    """The picture, bright where the weights (h, w) are large; enlarged without inventing cells."""
    height, width = picture.shape[:2]
    axes.imshow(picture.mean(-1), cmap="gray", vmin=0, vmax=255)
    shown = torch.nn.functional.interpolate(torch.from_numpy(weights)[None, None], size=(height, width), mode="nearest")
    # Single cells can have nearly all of the weight; the root shows the others, too.
    axes.imshow(shown[0, 0].sqrt(), cmap="inferno", alpha=0.65)
