"""Pictures with boxes and masks: the ground truth and what a model found, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.ndimage import binary_erosion, distance_transform_edt

from d2_detr.structures.detections import Detections
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import atomic_write
from d2_detr.visualization.figures import literal, save_png

COLOURS = ("#0a7bd6", "#f58231", "#911eb4", "#2aa198", "#e6194b", "#808000", "#c2185b", "#5d4037")
MASK_OPACITY = 0.45
FORMATS = (".png", ".jpg", ".jpeg")
DRAWING_INCHES = 5.0  # of the longer side of a picture on its own
SMALLEST_DRAWING = 640  # pixels of that side


class View(NamedTuple):
    """One way to see a picture: the truth, or what a model found."""

    title: str
    objects: Detections
    class_names: Sequence[str]


class Comparison(NamedTuple):
    """A picture (H, W, 3), uint8, RGB, and what is to be seen beside each other."""

    title: str
    picture: np.ndarray
    views: Sequence[View]


def save_comparisons(comparisons: Sequence[Comparison], path: Path, *, columns: int = 1) -> None:
    """Write one image with all comparisons, all of as many views, `columns` beside each other.

    A class has one colour in all of them, also where the views know it under other numbers.
    """
    palette = palette_of(name for comparison in comparisons for view in comparison.views for name in view.class_names)
    rows, views = -(-len(comparisons) // columns), len(comparisons[0].views)
    figure = Figure(figsize=(3.2 * views * columns, 3.5 * rows), layout="constrained")
    # Each has a frame of its own, so that one sees what belongs together.
    for part, comparison in zip(figure.subfigures(rows, columns, squeeze=False).flat, comparisons, strict=False):
        part.patch.set(edgecolor="0.75", linewidth=1)
        part.suptitle(literal(comparison.title), fontsize=8)
        for axes, view in zip(part.subplots(1, views, squeeze=False).flat, comparison.views, strict=True):
            # The name of the only class would say nothing, and hide something.
            draw_objects(axes, comparison.picture, view.objects, view.class_names, palette, named=len(palette) > 1)
            axes.set_axis_off()
            axes.set_title(literal(f"{view.title}: {len(view.objects.classes)}"), fontsize=7, loc="left")
    save_png(figure, path, dpi=120)


def save_objects(picture: np.ndarray, objects: Detections, class_names: Sequence[str], path: Path) -> None:
    """Write a picture (H, W, 3), uint8, RGB, with objects in it, at its own size; a small one is enlarged until the
    names of classes can be read.

    Raises:
        InputError: the name does not end with one of FORMATS.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: a drawing is written as {', '.join(FORMATS)}; give it such a name")
    height, width = picture.shape[:2]
    zoom = max(1, SMALLEST_DRAWING / max(height, width))
    drawn = [round(side * zoom) for side in (width, height)]
    # Names and lines have a size in inches, and so have the same share of every picture. Where inches do not give whole
    # pixels to the last bit, matplotlib up to 3.10 shifts the picture by one.
    resolutions = count(round(max(drawn) / DRAWING_INCHES))
    dpi = next(dpi for dpi in resolutions if all(side / dpi * dpi == side for side in drawn))
    figure = Figure(figsize=[side / dpi for side in drawn])
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    draw_objects(axes, picture, objects, class_names, palette_of(class_names))
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=dpi, pil_kwargs={"quality": 90})


def palette_of(class_names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, in their order."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(class_names))}


def draw_objects(
    axes: Axes,
    picture: np.ndarray,
    objects: Detections,
    class_names: Sequence[str],
    palette: Mapping[str, str],
    *,
    named: bool = True,
) -> None:
    """Show a picture with the box, mask, class name (if `named`) and score of each object, in the colour of its class's
    name."""
    height, width = picture.shape[:2]
    colours = [palette[class_names[label]] for label in objects.classes]
    painted = picture if objects.masks is None else _painted(picture, objects.masks, colours)
    # Boxes are measured from the corner of the first pixel, not from its middle.
    axes.imshow(painted, interpolation="nearest", extent=(0, width, height, 0))
    scores = [None] * len(objects.classes) if objects.scores is None else objects.scores
    for i, ((x0, y0, x1, y1), label, score) in enumerate(zip(objects.boxes_xyxy, objects.classes, scores, strict=True)):
        colour = colours[i]
        if np.isnan(x0):
            x0, y0 = _inside(objects.masks[i])
        else:
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.5))
        parts = [class_names[label]] * named + ([] if score is None else [f"{score:.2f}"])
        if not parts:
            continue
        above = "bottom" if y0 > max(height, width) / 40 else "top"  # of the corner, where there is room
        box = {"facecolor": colour, "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
        style = {"color": "white", "fontsize": 5.5, "verticalalignment": above, "bbox": box, "clip_on": True}
        axes.text(x0, y0, literal(" ".join(parts)), **style, zorder=3 + (score or 0))  # the surer name on top


def _painted(picture: np.ndarray, masks: np.ndarray, colours: Sequence[str]) -> np.ndarray:
    """The picture (H, W, 3) under half transparent masks (N, H, W), the smaller on top, each with a white outline."""
    painted = picture.astype(np.float32)
    for i in np.argsort([-mask.sum() for mask in masks]):
        mask, colour = masks[i], np.array(to_rgb(colours[i])) * 255
        painted[mask] = (1 - MASK_OPACITY) * picture[mask] + MASK_OPACITY * colour
        width = max(1, min(mask.shape) // 300)
        painted[mask & ~binary_erosion(mask, iterations=width, border_value=1)] = 255
    return painted.astype(np.uint8)


def _inside(mask: np.ndarray) -> tuple[float, float]:
    """x, y of the pixel of a mask that is farthest from its outline and from the border of the picture."""
    distance = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(distance.argmax(), mask.shape)
    return float(x), float(y)
