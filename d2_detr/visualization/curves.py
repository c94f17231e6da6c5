"""Training curves from metrics.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d2_detr.visualization.figures import file_style, literal, save_png, style_axes

# Panel title -> metrics that it shows. Those that are also measured in evaluations have a dashed line there.
PANELS = {
    "total loss": ("total_loss",),
    "classification loss": ("loss_ce",),
    "L1 loss": ("loss_bbox",),
    "GIoU loss": ("loss_giou",),
    "mask loss": ("loss_mask",),
    "DICE loss of masks": ("loss_dice",),
    "class error (%)": ("class_error",),
    "cardinality error": ("cardinality_error",),
    "AP, AP50 of boxes": ("bbox/AP", "bbox/AP50"),
    "AP, AP50 of masks": ("segm/AP", "segm/AP50"),
    "panoptic quality": ("panoptic_seg/PQ", "panoptic_seg/PQ_th", "panoptic_seg/PQ_st"),
    "learning rate": ("lr",),
}
COLUMNS = 4
Runs = Mapping[str, Sequence[dict]]  # name of a training -> lines of its metrics.json
LINES: Sequence[Any] = ("-", (0, (1, 1)), "-.")  # of the metrics of a panel
VALIDATION = (0, (4, 2))
MAX_MARKERS = 20  # a line with more points has no markers


def read_metrics(path: str | Path) -> list[dict]:
    """Read the lines of a metrics.json.

    Incomplete lines of an interrupted run are left out, and so are lines that a resumed or repeated run has replaced.
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


def save_curves(runs: Runs, path: Path) -> None:
    """Write an image with a panel for each measured loss, error, AP, and the learning rate.

    The x axis shows epochs, or iterations if a run did not count epochs.

    Args:
        runs: several runs have a color each; of a single one, training and validation do.
    """
    titles = measured_panels(runs)
    rows = max(1, math.ceil(len(titles) / COLUMNS))
    with file_style():
        figure = Figure(figsize=(3.5 * COLUMNS, 3 * rows), layout="constrained")
        grid = figure.subplots(rows, COLUMNS, squeeze=False).flat
        for axes in grid[len(titles) :]:
            axes.set_axis_off()
        for axes, title in zip(grid, titles, strict=False):
            plot_panel(axes, title, runs)
        if len(runs) > 1:
            _add_legend(figure, list(runs))
        save_png(figure, path)


def measured_panels(runs: Runs) -> list[str]:
    """Return the titles of the panels with at least one measured metric."""
    measured = {name for metrics in runs.values() for line in metrics for name in line}
    return [title for title, names in PANELS.items() if measured & set(names)]


def plot_panel(axes: Axes, title: str, runs: Runs) -> None:
    """Plot the panel of PANELS with this title."""
    unit = "epoch" if all(map(_iters_per_epoch, filter(None, runs.values()))) else "iteration"
    is_multiple = len(PANELS[title]) > 1
    for number, (run, metrics) in enumerate(runs.items()):
        prefix = [run] if len(runs) > 1 else []
        for index, (name, line) in enumerate(zip(PANELS[title], LINES, strict=False)):
            # With several runs the first metric has the line that its run has in all panels, so the name of the run.
            metric = [name.rpartition("/")[2]] if is_multiple and not (prefix and line == LINES[0]) else []
            for measured, label, style, kind in (
                (name, ", ".join([*prefix, *metric]) or "training", line, index),
                (f"validation/{name}", ", ".join([*prefix, "validation"]), VALIDATION, 1),
            ):
                points = [(_position(entry, unit, metrics), entry[measured]) for entry in metrics if measured in entry]
                steps = {"drawstyle": "steps-pre"} if name == "lr" else {}
                _plot(axes, points, label, color=f"C{number if prefix else kind}", linestyle=style, **steps)
    style_axes(axes, title, unit, y_max=1.1 * axes.get_ylim()[1])
    if len(runs) == 1 and len(axes.lines) > 1:
        axes.legend(fontsize=9, loc="best")


def _iters_per_epoch(metrics: Sequence[dict]) -> float:
    """Return the iterations per epoch; 0 if the run did not count epochs."""
    counted = (line for line in metrics if "epoch" in line and "total_loss" in line)
    return next(((line["iteration"] + 1) / line["epoch"] for line in counted), 0.0)


def _position(line: dict, unit: str, metrics: Sequence[dict]) -> float:
    """Return the position of a line of the metrics on the x axis.

    A metric that was last measured before the iteration of its line, such as class_error in batches without objects,
    is written as a line of its own without epoch.
    """
    return line[unit] if unit in line else (line["iteration"] + 1) / _iters_per_epoch(metrics)


def _plot(axes: Axes, points: Sequence[tuple[float, float]], label: str, **style: Any) -> None:
    if points:
        marker = "o" if len(points) <= MAX_MARKERS else ""
        filled = "full" if style["linestyle"] == LINES[0] else "none"  # distinguishes single points
        axes.plot(
            *zip(*points, strict=True), label=literal(label), marker=marker, markersize=3.5, fillstyle=filled, **style
        )


def _add_legend(figure: Figure, runs: Sequence[str]) -> None:
    """Add one legend below the panels, where the names of the runs cover no lines."""
    lines = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
    names = [literal(run) for run in runs]
    labels = sorted(lines, key=lambda label: (names.index(max(filter(label.startswith, names), key=len)), label))
    columns = math.ceil(len(labels) / max(1, round(len(labels) / 4)))
    figure.legend([lines[label] for label in labels], labels, fontsize=8, ncols=columns, loc="outside lower center")
