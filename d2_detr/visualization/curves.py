"""Training curves from the metrics.json that a training writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

from matplotlib.figure import Figure

from d2_detr.files import replacing

# Panel title -> the metrics that it shows.
PANELS = {
    "total loss": ("total_loss",),
    "classification loss": ("loss_ce",),
    "L1 loss": ("loss_bbox",),
    "GIoU loss": ("loss_giou",),
    "mask losses": ("loss_mask", "loss_dice"),
    "class error (%)": ("class_error",),
    "cardinality error": ("cardinality_error",),
    "AP, AP50 of boxes": ("bbox/AP", "bbox/AP50"),
    "AP, AP50 of masks": ("segm/AP", "segm/AP50"),
    "panoptic quality": ("panoptic_seg/PQ", "panoptic_seg/PQ_th", "panoptic_seg/PQ_st"),
    "learning rate": ("lr",),
}
COLUMNS = 4


def read_metrics(path: str | Path) -> list[dict]:
    """The lines of a metrics.json.

    A line that an interruption cut short is left out, and so is what a run that went on from an earlier checkpoint, or
    began anew in the same folder, has written again.
    """
    lines: list[dict] = []
    newest = -1
    for text in Path(path).read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if "total_loss" in line:
            if line["iteration"] <= newest:
                lines = [earlier for earlier in lines if earlier["iteration"] < line["iteration"]]
            newest = line["iteration"]
        lines.append(line)
    return lines


def save_curves(metrics: list[dict], path: Path) -> None:
    """Write one image with a panel for each loss, the two errors, AP and the rate over the iterations, as far as they
    were measured."""
    measured = set().union(*metrics)
    panels = {title: names for title, names in PANELS.items() if measured & set(names)}
    rows = max(1, math.ceil(len(panels) / COLUMNS))
    figure = Figure(figsize=(3.5 * COLUMNS, 3 * rows), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, names) in zip(grid, panels.items(), strict=False):
        for name in names:
            points = [(line["iteration"], line[name]) for line in metrics if name in line]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 5 else "", label=name)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("iteration", fontsize=8)
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(fontsize=8, loc="best")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
