"""Pictures with boxes: the ground truth and what a model found, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from d2_detr.files import replacing

COLOURS = ("#e6194b", "#0a7bd6", "#f58231", "#911eb4", "#2aa198", "#808000", "#c2185b", "#5d4037")


class Objects(NamedTuple):
    """Objects in one picture: boxes_xyxy (N, 4) in its pixels, classes (N,) from 0, scores (N,) or None for truth."""

    boxes_xyxy: np.ndarray
    classes: np.ndarray
    scores: np.ndarray | None = None

    def above(self, threshold: float) -> Objects:
        keep = self.scores > threshold
        return Objects(self.boxes_xyxy[keep], self.classes[keep], self.scores[keep])


class Comparison(NamedTuple):
    """A picture (H, W, 3) uint8 RGB with what is in it and what was found."""

    title: str
    picture: np.ndarray
    truth: Objects
    predicted: Objects


def save_comparisons(
    comparisons: Sequence[Comparison], class_names: Sequence[str], path: Path, *, columns: int = 1
) -> None:
    """Write one image with all comparisons, `columns` beside each other, the truth on the left of each."""
    rows = -(-len(comparisons) // columns)
    figure = Figure(figsize=(6.4 * columns, 3.5 * rows), layout="constrained")
    grid = figure.subplots(rows, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, comparison in enumerate(comparisons):
        left, right = grid[number // columns, 2 * (number % columns) :][:2]
        draw_objects(left, comparison.picture, comparison.truth, class_names)
        draw_objects(right, comparison.picture, comparison.predicted, class_names)
        left.set_title(f"{comparison.title}\ntruth: {len(comparison.truth.classes)}", fontsize=7, loc="left")
        right.set_title(f"\nfound: {len(comparison.predicted.classes)}", fontsize=7, loc="left")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def draw_objects(axes: Axes, picture: np.ndarray, objects: Objects, class_names: Sequence[str]) -> None:
    """Show a picture with the box, class name and score of each object."""
    axes.imshow(picture, interpolation="nearest")
    scores = [None] * len(objects.classes) if objects.scores is None else objects.scores
    for (x0, y0, x1, y1), label, score in zip(objects.boxes_xyxy, objects.classes, scores, strict=True):
        colour = COLOURS[label % len(COLOURS)]
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.5))
        text = class_names[label] if score is None else f"{class_names[label]} {score:.2f}"
        box = {"facecolor": colour, "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
        axes.text(x0, y0, text, color="white", fontsize=5.5, verticalalignment="bottom", bbox=box, clip_on=True)
