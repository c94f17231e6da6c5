"""Training curves from the metrics.json that trainings write."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d2_detr.visualization.figures import literal, save_png

# Panel title -> the metrics that it shows. What is measured on the validation pictures, too, has a dashed line there.
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
Runs = Mapping[str, Sequence[dict]]  # the metrics of trainings by name
LINES = ("-", (0, (1, 1)), "-.")  # of the metrics of a panel
VALIDATION = (0, (4, 2))
MOST_MARKERS = 20  # of a line whose points are marked


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


def save_curves(runs: Runs, path: Path) -> None:
    """Write one image with a panel for each loss, the two errors, AP and the rate over the epochs, or the iterations
    where the trainings did not count epochs (as Detectron2's own don't).

    Args:
        runs: each in a colour of its own; of a single one, training and validation are. Panels of what none of them
            measured are left out.
    """
    titles = measured_panels(runs)
    rows = max(1, math.ceil(len(titles) / COLUMNS))
    figure = Figure(figsize=(3.5 * COLUMNS, 3 * rows), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for axes in grid[len(titles) :]:
        axes.set_axis_off()
    for axes, title in zip(grid, titles, strict=False):
        draw_panel(axes, title, runs)
    if len(runs) > 1:
        _one_legend(figure, list(runs))
    save_png(figure, path)


def measured_panels(runs: Runs) -> list[str]:
    """The titles of the panels that would not be empty."""
    measured = {name for metrics in runs.values() for line in metrics for name in line}
    return [title for title, names in PANELS.items() if measured & set(names)]


def draw_panel(axes: Axes, title: str, runs: Runs) -> None:
    """Draw the panel of PANELS with this title."""
    unit = "epoch" if all(map(_epoch_length, filter(None, runs.values()))) else "iteration"
    several = len(PANELS[title]) > 1
    for number, (run, metrics) in enumerate(runs.items()):
        of_run = [run] if len(runs) > 1 else []
        for index, (name, line) in enumerate(zip(PANELS[title], LINES, strict=False)):
            # Of several runs the first metric has the line that the run has in all panels, and so its name alone.
            metric = [name.rpartition("/")[2]] if several and not (of_run and line == LINES[0]) else []
            for measured, label, style, kind in (
                (name, ", ".join([*of_run, *metric]) or "training", line, index),
                (f"validation/{name}", ", ".join([*of_run, "validation"]), VALIDATION, 1),
            ):
                points = [(_position(entry, unit, metrics), entry[measured]) for entry in metrics if measured in entry]
                steps = {"drawstyle": "steps-pre"} if name == "lr" else {}
                _draw(axes, points, label, color=f"C{number if of_run else kind}", linestyle=style, **steps)
    _finish(axes, title, unit)
    if len(runs) == 1 and len(axes.lines) > 1:
        axes.legend(fontsize=9, loc="best")


def _epoch_length(metrics: Sequence[dict]) -> float:
    """In iterations; 0 where the training has not counted epochs."""
    counted = (line for line in metrics if "epoch" in line and "total_loss" in line)
    return next(((line["iteration"] + 1) / line["epoch"] for line in counted), 0.0)


def _position(line: dict, unit: str, metrics: Sequence[dict]) -> float:
    """Of a line of the metrics on the axis. What was last measured before the iteration that is written, as class_error
    where its pictures hold no object, has a line of its own without epoch."""
    return line[unit] if unit in line else (line["iteration"] + 1) / _epoch_length(metrics)


def _draw(axes: Axes, points: Sequence[tuple[float, float]], label: str, **style: object) -> None:
    if points:
        marker = "o" if len(points) <= MOST_MARKERS else ""
        filled = "full" if style["linestyle"] == LINES[0] else "none"  # a single point shows no line
        axes.plot(
            *zip(*points, strict=True), label=literal(label), marker=marker, markersize=3.5, fillstyle=filled, **style
        )


def _finish(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(unit, fontsize=9)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.grid(alpha=0.3)


def _one_legend(figure: Figure, runs: Sequence[str]) -> None:
    """Below the panels: the names of several runs would cover the lines of each."""
    labelled = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    names = [literal(run) for run in runs]
    labels = sorted(labelled, key=lambda label: (names.index(max(filter(label.startswith, names), key=len)), label))
    columns = math.ceil(len(labels) / max(1, round(len(labels) / 4)))
    figure.legend([labelled[label] for label in labels], labels, fontsize=8, ncols=columns, loc="outside lower center")
