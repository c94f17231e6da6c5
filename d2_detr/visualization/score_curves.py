"""Plots of precision, recall and F1."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes

from d2_detr.evaluation.score_curves import ScoreCurve
from d2_detr.visualization.colors import GRAY
from d2_detr.visualization.figures import literal, style_axes

MAX_CLASSES = 10  # with a line for each; with more there is one line for all


def plot_precision_recall(axes: Axes, class_curves: Mapping[str, ScoreCurve], curve: ScoreCurve) -> None:
    """Plot a line for each class and, if there are several, one for all together."""
    lines = dict(class_curves) if len(class_curves) <= MAX_CLASSES else {}
    for name, class_curve in lines.items():
        axes.plot(class_curve.recall, class_curve.precision, label=literal(name), linewidth=1.2)
    if len(lines) != 1:
        axes.plot(curve.recall, curve.precision, label="all", color=GRAY, linewidth=2.5)
    style_axes(axes, "precision and recall", "recall", "precision", x_max=1.02, y_max=1.05)
    axes.legend(fontsize=9, loc="best")


def plot_score_curve(axes: Axes, curve: ScoreCurve) -> None:
    """Plot precision, recall and F1 by score threshold, and mark the best threshold."""
    for name, values in {"precision": curve.precision, "recall": curve.recall, "F1": curve.f1}.items():
        axes.plot(curve.scores, values, label=name, linewidth=2 if name == "F1" else 1.2)
    if (best := curve.best_threshold) is not None:
        axes.axvline(best, color=GRAY, linestyle=":", label=f"best: {best:.2f}")
    style_axes(axes, "precision, recall and F1 by threshold", "score threshold", x_max=1.02, y_max=1.05)
    axes.legend(fontsize=9, loc="best")
