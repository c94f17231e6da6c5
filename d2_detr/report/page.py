"""The page of the report: report.html.jinja with report.css and report.js in it, one file that needs no other.

Plots are SVG by matplotlib. Boxes are SVG over the images, so that they stay sharp when they are enlarged.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from d2_detr.evaluation.confusion import ClassPair
from d2_detr.evaluation.matching import ERRORS, Outcome
from d2_detr.evaluation.score_curves import MIN_USEFUL_F1
from d2_detr.report.image_cards import ImageCard
from d2_detr.utils.files import atomic_write
from d2_detr.visualization.colors import OUTCOME_COLORS


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell of each row is a name, NaN is shown as a dash."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    bars: Sequence[int] = ()  # columns of percentages that are also shown as bars


@dataclass(frozen=True)
class ConfusionCell:
    """How often a pair of true and predicted class occurs; `share` is the percentage of its row."""

    pair: ClassPair
    description: str
    count: int
    share: float
    outcome: Outcome


@dataclass(frozen=True)
class ConfusionTable:
    """Confusion matrix: rows are true classes and background, columns predicted classes and missed."""

    classes: Sequence[tuple[int, str]]  # index and name; of many classes some
    counts: Counter[ClassPair]  # of all classes
    num_classes: int

    @property
    def rows(self) -> list[list[ConfusionCell]]:
        """The cells."""
        labels = [*(label for label, _ in self.classes), None]
        return [[self._cell(gt, pred) for pred in labels] for gt in labels]

    def _cell(self, gt: int | None, pred: int | None) -> ConfusionCell:
        names: dict[int | None, str] = {None: "background", **dict(self.classes)}
        description = f"{names[gt]} missed" if pred is None else f"{names[gt]} predicted as {names[pred]}"
        if gt is None or pred is None:
            outcome = Outcome.BACKGROUND if gt is None else Outcome.MISSED
        else:
            outcome = Outcome.TRUE_POSITIVE if gt == pred else Outcome.CLASSIFICATION
        total = sum(count for (gt_class, _), count in self.counts.items() if gt_class == gt)
        count = self.counts[gt, pred]
        return ConfusionCell((gt, pred), description, count, 100 * count / max(total, 1), outcome)


@dataclass(frozen=True)
class Report:
    """The contents of the page; a section without contents is left out.

    Attributes:
        summary: title -> name -> value.
        predict_command, repeat_command: how to use the model, and how to repeat the training.
        training_curves, score_curves: as SVG.
        training_images: data URI of an image of them.
        training_images_caption: what was done to them.
        dataset_name: the evaluated dataset.
        num_images: in that dataset; the cards show those with the most errors.
        figures: the main results.
        threshold: minimum score of the predictions that are shown and counted.
        best_f1: F1 at the threshold.
        attention: image name -> data URI of a drawing.
    """

    title: str
    summary: dict[str, dict[str, str]]
    predict_command: str = ""
    repeat_command: str = ""
    training_curves: Sequence[str] = ()
    training_images: str = ""
    training_images_caption: str = ""
    dataset_name: str = ""
    num_images: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    confusion: ConfusionTable | None = None
    score_curves: Sequence[str] = ()
    threshold: float = 0.5
    best_f1: float = 1.0
    class_names: Sequence[str] = ()
    image_cards: Sequence[ImageCard] = ()
    attention: dict[str, str] = field(default_factory=dict)


def save_report(report: Report, path: Path) -> None:
    """Write the page."""
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": _format_cell, "class_pair": _format_class_pair}
    page = environment.get_template("report.html.jinja").render(
        report=report,
        style=Markup((here / "report.css").read_text(encoding="utf-8")),  # nosec B704  # of this package
        script=Markup((here / "report.js").read_text(encoding="utf-8")),  # nosec B704  # of this package
        outcome_colors=OUTCOME_COLORS,
        errors=ERRORS,
        min_useful_f1=MIN_USEFUL_F1,
    )
    with atomic_write(path) as temporary:
        # A file name that is not UTF-8 has characters that cannot be written.
        temporary.write_text(page, encoding="utf-8", errors="replace")


def _format_cell(value: object) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.1f}"
    return str(value)


def _format_class_pair(pair: ClassPair) -> str:
    """Format a pair for the script."""
    return ":".join("" if label is None else str(label) for label in pair)
