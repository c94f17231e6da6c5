"""What a threshold on the scores costs and brings: precision against recall, and both against the score."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes

from d2_detr.evaluation.matching import Curve
from d2_detr.visualization.figures import literal

MOST_CLASSES = 10  # that have a line of their own; more than these have one together


def draw_precision_recall(axes: Axes, of_classes: Mapping[str, Curve], of_all: Curve) -> None:
    """A line for each class, and one for all together where there are several."""
    lines = dict(of_classes) if len(of_classes) <= MOST_CLASSES else {}
    for name, curve in lines.items():
        axes.plot(curve.recall, curve.precision, label=literal(name), linewidth=1.2)
    if len(lines) != 1:
        axes.plot(of_all.recall, of_all.precision, label="all", color="#888888", linewidth=2.5)
    _finish(axes, "precision and recall", "recall", "precision")


def draw_confidence(axes: Axes, curve: Curve) -> None:
    """Precision, recall and F1 of what has at least a score, and the score with the best F1."""
    for name, values in {"precision": curve.precision, "recall": curve.recall, "F1": curve.f1}.items():
        axes.plot(curve.scores, values, label=name, linewidth=2 if name == "F1" else 1.2)
    axes.axvline(curve.best_threshold, color="#888888", linestyle=":", label=f"best: {curve.best_threshold:.2f}")
    _finish(axes, "precision, recall, F1 by threshold", "least score", "")


def _finish(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.05)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, loc="best")
