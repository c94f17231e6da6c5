"""Image cards of the report: an image with its ground truth and the predictions for it."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from d2_detr.evaluation.confusion import ClassPair
from d2_detr.evaluation.matching import ERRORS, ImageOutcomes, Outcome
from d2_detr.structures.detections import Detections
from d2_detr.visualization.colors import OUTCOME_COLORS
from d2_detr.visualization.drawing import mask_layer, resize_masks

LONGER_SIDE = 520  # of an image on the page, in units of the page; the stored image has no more pixels
MAX_LABELS = 8  # in a small image


@dataclass(frozen=True)
class Box:
    """A box in units of the page."""

    x: float
    y: float
    width: float
    height: float
    label: str
    outcome: Outcome


@dataclass(frozen=True)
class Overlay:
    """What is drawn over an image: its ground truth or its predictions."""

    boxes: Sequence[Box]
    masks: str = ""  # data URI of a transparent image

    @property
    def is_crowded(self) -> bool:
        """Whether the labels would cover each other in a small image."""
        return len(self.boxes) > MAX_LABELS


@dataclass(frozen=True)
class ImageCard:
    """An image with its ground truth and its predictions.

    Attributes:
        image: data URI.
        width, height: in units of the page.
        counts: number of true positives and of errors of each type that occurs.
        outcomes: "outcome:class" of all boxes, for the filter; a classification error belongs to both classes.
        class_pairs: of true and predicted class.
    """

    name: str
    image: str
    width: int
    height: int
    ground_truth: Overlay
    predictions: Overlay
    counts: dict[Outcome, int]
    outcomes: Sequence[str]
    class_pairs: Sequence[ClassPair]

    @property
    def num_errors(self) -> int:
        """Number of errors of all types."""
        return sum(self.counts.get(outcome, 0) for outcome in ERRORS)


def make_image_card(
    name: str,
    pixels: np.ndarray,
    ground_truth: Detections,
    predictions: Detections,
    outcomes: ImageOutcomes,
    confusion: Collection[ClassPair],
    class_names: Sequence[str],
) -> ImageCard:
    """Make a card of an image (H, W, 3), RGB, uint8, reduced to the size that the page needs."""
    height, width = pixels.shape[:2]
    scale = LONGER_SIDE / max(height, width)
    image = Image.fromarray(pixels)
    image.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.LANCZOS)
    counts = {outcome: outcomes.count(outcome) for outcome in (Outcome.TRUE_POSITIVE, *ERRORS)}
    classes = [*ground_truth.classes.tolist(), *predictions.classes.tolist()]
    filters = {(outcome, label) for outcome, label in zip(outcomes.gt + outcomes.pred, classes, strict=True)}
    filters |= {
        (Outcome.CLASSIFICATION, gt_class) for gt_class, pred_class in confusion
        if gt_class != pred_class and gt_class is not None and pred_class is not None
    }  # fmt: skip
    return ImageCard(
        name,
        data_uri(image, "JPEG"),
        max(1, round(width * scale)),
        max(1, round(height * scale)),
        _overlay(ground_truth, outcomes.gt, class_names, scale, image.size),
        _overlay(predictions, outcomes.pred, class_names, scale, image.size),
        {outcome: count for outcome, count in counts.items() if count},
        sorted(f"{outcome.name.lower()}:{label}" for outcome, label in filters),
        list(confusion),
    )


def data_uri(image: Image.Image | Figure, format: str) -> str:
    """Encode an image as a data URI."""
    buffer = io.BytesIO()
    if isinstance(image, Figure):
        image.savefig(buffer, format=format.lower(), dpi=80)
    else:
        image.save(buffer, format, quality=82, optimize=True)
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _overlay(
    detections: Detections,
    outcomes: Sequence[Outcome],
    class_names: Sequence[str],
    scale: float,
    size_wh: tuple[int, int],
) -> Overlay:
    boxes = []
    for i, (x0, y0, x1, y1) in enumerate((detections.boxes_xyxy * scale).round(1).tolist()):
        name = class_names[detections.classes[i]] if len(class_names) > 1 else ""  # the only class needs no name
        score = "" if detections.scores is None else f"{detections.scores[i]:.2f}"
        boxes.append(Box(x0, y0, round(x1 - x0, 1), round(y1 - y0, 1), f"{name} {score}".strip(), outcomes[i]))
    if detections.masks is None or not len(detections.masks):
        return Overlay(boxes)
    layer = mask_layer(resize_masks(detections.masks, size_wh), [OUTCOME_COLORS[outcome] for outcome in outcomes])
    return Overlay(boxes, data_uri(layer.quantize(32), "PNG"))
