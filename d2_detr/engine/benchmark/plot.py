"""Bars of the times of a benchmark."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d2_detr.engine.benchmark.results import PASSES, Results
from d2_detr.visualization.figures import file_style, save_png, style_axes

BAR_HEIGHT = 0.38  # inches


def save_plot(results: Results, path: Path) -> None:
    """Write an image with a panel for each pass: a bar for the median of each row, a line from minimum to maximum."""
    with file_style():
        figure = Figure(figsize=(11, 1.2 + BAR_HEIGHT * len(results.rows)), layout="constrained")
        for axes, pass_name in zip(figure.subplots(1, len(PASSES)), PASSES, strict=True):
            _plot_pass(axes, results, pass_name)
        save_png(figure, path)


def _plot_pass(axes: Axes, results: Results, pass_name: str) -> None:
    rows = [(row, timing) for row in results.rows if (timing := getattr(row, pass_name))]
    names = list(dict.fromkeys(row.name for row in results.rows))
    labels = [f"{row.name}, {row.precision}" for row, _ in rows]
    bars = axes.barh(
        labels,
        [timing.median for _, timing in rows],
        xerr=[
            [timing.median - timing.minimum for _, timing in rows],
            [timing.maximum - timing.median for _, timing in rows],
        ],
        color=[f"C{names.index(row.name)}" for row, _ in rows],
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    for bar, (_, timing) in zip(bars, rows, strict=True):
        middle = bar.get_y() + bar.get_height() / 2
        axes.annotate(
            f"{timing.median:.3g}", (0, middle), (3, 0), textcoords="offset points", fontsize=8, va="center_baseline"
        )
    style_axes(axes, PASSES[pass_name], "seconds per batch", y_max=1)
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the first on top
    axes.grid(visible=False, axis="y")
