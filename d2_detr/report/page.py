"""report.html: what a training came to, in one file that needs nothing else to be looked at.

The page is report.html.jinja, with report.css and report.js in it. Curves are drawn by matplotlib, boxes are SVG over
the pictures, so that they stay sharp when they are enlarged.
"""

from __future__ import annotations

import base64
import io
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from d2_detr.evaluation.confusion import Taken
from d2_detr.evaluation.matching import LEAST_F1, MISTAKES, Outcome, Outcomes
from d2_detr.structures.detections import Detections
from d2_detr.utils.files import atomic_write

LONGER_SIDE = 520  # of a picture on the page, in its own units; pictures are stored with so many pixels at most
MOST_LABELS = 8
MASK_OPACITY = 0.4
# By outcome, distinct for the colour-blind (Okabe and Ito).
COLOURS = {
    Outcome.FOUND: "#00a878", Outcome.MISSED: "#ff9f1c", Outcome.FALSE: "#ff3b5c", Outcome.BADLY_PLACED: "#3a86ff",
    Outcome.DUPLICATE: "#c77dff", Outcome.WRONG_CLASS: "#ffd60a", Outcome.IN_CROWD: "#999999",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first of each row is a name, NaN is shown as a dash."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    bars: Sequence[int] = ()  # columns of 0 to 100 that have a bar behind the figure


@dataclass(frozen=True)
class Confusion:
    """What objects were taken for: a row and a column for each of some classes, and for nothing."""

    classes: Sequence[tuple[int, str]]  # number and name
    counts: Counter[Taken]

    @property
    def rows(self) -> list[list[tuple[Taken, str, int, float]]]:
        """Of each cell what it is of, also in words, the count, and its share of the row in percent."""
        entries = [*self.classes, (None, "nothing")]
        cells = []
        for label, name in entries:
            total = sum(self.counts[label, other] for other, _ in entries) or 1
            row = [
                ((label, other), f"{name} taken for {taken_for}", self.counts[label, other])
                for other, taken_for in entries
            ]
            cells.append([(*cell, 100 * cell[2] / total) for cell in row])
        return cells


@dataclass(frozen=True)
class Box:
    """A box on the page, in units of LONGER_SIDE."""

    x: float
    y: float
    width: float
    height: float
    label: str
    outcome: Outcome


@dataclass(frozen=True)
class Side:
    """What is drawn over a picture: the truth, or the predictions."""

    boxes: Sequence[Box]
    masks: str = ""  # a transparent picture, as an address

    @property
    def is_crowded(self) -> bool:
        """So that labels would lie over each other in a small picture."""
        return len(self.boxes) > MOST_LABELS


@dataclass(frozen=True)
class Sheet:
    """A validation picture, with truth and predictions."""

    name: str
    picture: str  # as an address
    width: int  # in the units of the boxes
    height: int
    truth: Side
    predicted: Side
    counts: dict[Outcome, int]  # of what there is
    marks: Sequence[str]  # "outcome:class" of all boxes, for the filter; a wrong class has both classes
    taken: Sequence[Taken]  # what objects were taken for

    @property
    def num_mistakes(self) -> int:
        return sum(self.counts.get(outcome, 0) for outcome in MISTAKES)


@dataclass(frozen=True)
class Report:
    """All that the page shows; what is empty has no section."""

    title: str
    summary: dict[str, dict[str, str]]  # title -> name -> value
    curves: Sequence[str]  # of the training, as SVG
    weights: str  # path of the model
    repeat: str  # the command that does the training again
    training_pictures: str = ""  # as an address
    figures: dict[str, float] = field(default_factory=dict)  # the few that count, by name
    tables: Sequence[Table] = ()
    confusion: Confusion | None = None
    score_curves: Sequence[str] = ()  # as SVG
    threshold: float = 0.5
    best_f1: float = 1.0  # at that threshold
    class_names: Sequence[str] = ()
    sheets: Sequence[Sheet] = ()
    num_pictures: int = 0  # of which the sheets are the worst
    attention: dict[str, str] = field(default_factory=dict)  # name of a picture -> address of an image


def save_report(report: Report, path: Path) -> None:
    """Write the page."""
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": _cell, "quoted": shlex.quote, "taken": _taken}
    page = environment.get_template("report.html.jinja").render(
        report=report,
        style=Markup((here / "report.css").read_text(encoding="utf-8")),
        script=Markup((here / "report.js").read_text(encoding="utf-8")),
        colours={outcome.name.lower(): colour for outcome, colour in COLOURS.items()},
        outcomes=list(COLOURS),
        mistakes=MISTAKES,
        least_f1=LEAST_F1,
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def make_sheet(
    name: str,
    picture: np.ndarray,
    truth: Detections,
    predicted: Detections,
    outcomes: Outcomes,
    confusion: Collection[Taken],
    class_names: Sequence[str],
) -> Sheet:
    """A picture (H, W, 3), uint8, RGB, with what is in it and what was found, made small enough for the page."""
    height, width = picture.shape[:2]
    scale = LONGER_SIDE / max(height, width)
    shown_wh = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(picture)
    image.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.LANCZOS)
    sides = {"truth": (truth, outcomes.of_objects), "predicted": (predicted, outcomes.of_predictions)}
    counts = {outcome: outcomes.count(outcome) for outcome in (Outcome.FOUND, *MISTAKES)}
    marks = {
        f"{outcome.name.lower()}:{label}"
        for objects, given in sides.values() for label, outcome in zip(objects.classes, given, strict=True)
    }  # fmt: skip
    marks |= {
        f"wrong_class:{label}" for label, prediction in confusion
        if label != prediction and label is not None and prediction is not None
    }  # fmt: skip
    return Sheet(
        name,
        address(image, "JPEG"),
        *shown_wh,
        **{side: _side(objects, given, class_names, scale, image.size) for side, (objects, given) in sides.items()},
        counts={outcome: count for outcome, count in counts.items() if count},
        marks=sorted(marks),
        taken=list(confusion),
    )


def address(picture: Image.Image | Figure, format: str) -> str:
    """A picture as an address that holds all of it."""
    buffer = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(buffer, format=format.lower(), dpi=80)
    else:
        picture.save(buffer, format, quality=82, optimize=True)
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _side(
    objects: Detections, outcomes: Sequence[Outcome], class_names: Sequence[str], scale: float, size_wh: tuple[int, int]
) -> Side:
    boxes = []
    for i, (x0, y0, x1, y1) in enumerate((objects.boxes_xyxy * scale).round(1).tolist()):
        # The name of the only class would say nothing.
        name = class_names[objects.classes[i]] if len(class_names) > 1 else ""
        score = "" if objects.scores is None else f"{objects.scores[i]:.2f}"
        label = f"{name} {score}".strip()
        boxes.append(Box(x0, y0, round(x1 - x0, 1), round(y1 - y0, 1), label, outcomes[i]))
    has_masks = objects.masks is not None and len(objects.masks)
    return Side(boxes, _painted(objects.masks, outcomes, size_wh) if has_masks else "")


def _painted(masks: np.ndarray, outcomes: Sequence[Outcome], size_wh: tuple[int, int]) -> str:
    """Masks (N, H, W) in the colours of their outcomes, the smaller ones on top."""
    layer = np.zeros((*size_wh[::-1], 4), np.uint8)
    for i in np.argsort([-mask.sum() for mask in masks]):
        mask = np.asarray(Image.fromarray(masks[i]).resize(size_wh, Image.Resampling.NEAREST))
        layer[mask] = [round(255 * part) for part in (*to_rgb(COLOURS[outcomes[i]]), MASK_OPACITY)]
    return address(Image.fromarray(layer).quantize(32), "PNG")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{value:.1f}"
    return str(value)


def _taken(classes: Taken) -> str:
    """As the script knows it."""
    return ":".join("" if label is None else str(label) for label in classes)
