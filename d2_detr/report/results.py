"""The results of a training and an evaluation as figures, tables, plots and images of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from d2_detr.data.annotations import ground_truth_detections, read_record_image
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.data.sampling import sample_evenly
from d2_detr.evaluation.average_precision import (
    AveragePrecision,
    average_precision_per_class,
    mean_average_precision,
)
from d2_detr.evaluation.error_analysis import ErrorAnalysis, ImageErrors, analyze_errors
from d2_detr.evaluation.score_curves import ScoreCurve
from d2_detr.inference.attention import predict_with_attention
from d2_detr.report.image_cards import ImageCard, data_uri, make_image_card
from d2_detr.report.page import ConfusionTable, Table
from d2_detr.structures.conversions import detections_from_instances
from d2_detr.structures.dataset import Dataset
from d2_detr.visualization.attention import draw_attention
from d2_detr.visualization.curves import measured_panels, plot_panel
from d2_detr.visualization.figures import page_style, svg
from d2_detr.visualization.score_curves import plot_precision_recall, plot_score_curve

from detectron2.config import CfgNode

MAX_CARDS = 100
MAX_CONFUSED_CLASSES = 20  # in the table
NUM_ATTENTION_IMAGES = 3
MAX_ATTENTION_OBJECTS = 10  # of an image
TASKS = {"bbox": "boxes", "segm": "masks"}


def plot_training_curves(metrics: Sequence[dict]) -> list[str]:
    """Plot the measured metrics of a training, as SVG."""
    runs = {"training": metrics}
    return [_plot(title, partial(plot_panel, title=title, runs=runs)) for title in measured_panels(runs)]


def describe_results(
    cfg: CfgNode, model: nn.Module, dataset: Dataset, results: list[dict], panoptic_quality: float | None
) -> dict[str, Any]:
    """Return the fields of Report about the evaluation of a model on a dataset.

    Args:
        results: the predictions, in COCO's results format.
    """
    things = dataset.things
    ap_per_class = {
        task: average_precision_per_class(things.json_file, results, task)
        for task in TASKS if task == "bbox" or cfg.MODEL.MASK_ON
    }  # fmt: skip
    analysis = analyze_errors(things.records, things.label_map, results)
    figures = {
        f"{measure.upper()} of {TASKS[task]}": getattr(mean_average_precision(per_class), measure)
        for task, per_class in ap_per_class.items() for measure in ("ap", "ap50")
    }  # fmt: skip
    if panoptic_quality is not None:
        figures["panoptic quality"] = panoptic_quality
    shares = _precision_and_recall(analysis.curve, analysis.threshold)
    figures |= {f"{name} at {analysis.threshold:.2f}": value for name, value in shares.items()}
    names = _unique_names(things.records)
    worst = analysis.images[:MAX_CARDS]
    return {
        "dataset_name": dataset.name,
        "num_images": len(things.records),
        "figures": figures,
        "tables": [_ap_table(task, per_class, analysis) for task, per_class in ap_per_class.items()],
        "confusion": _confusion_table(analysis),
        "score_curves": _score_curves(analysis),
        "threshold": analysis.threshold,
        "best_f1": analysis.curve.best_f1,
        "class_names": things.label_map.names,
        "image_cards": [_image_card(names, analysis, image, masks=cfg.MODEL.MASK_ON) for image in worst],
        "attention": _attention(names, cfg, model, dataset, analysis),
    }


# ---- plots and tables


def _plot(title: str, plot: Callable[[Axes], None], *, width: float = 4) -> str:
    with page_style():
        figure = Figure(figsize=(width, 3), layout="constrained")
        plot(figure.subplots())
        return svg(figure, title)


def _score_curves(analysis: ErrorAnalysis) -> list[str]:
    curves = zip(analysis.label_map.names, analysis.class_curves, strict=True)
    class_curves = {name: curve for name, curve in curves if curve.num_gt}
    return [
        _plot(
            "precision and recall",
            partial(plot_precision_recall, class_curves=class_curves, curve=analysis.curve),
            width=5,
        ),
        _plot("precision, recall and F1", partial(plot_score_curve, curve=analysis.curve), width=5),
    ]


def _precision_and_recall(curve: ScoreCurve, threshold: float) -> dict[str, float]:
    precision, recall = curve.at(threshold)
    return {"precision (%)": 100 * precision, "recall (%)": 100 * recall}


def _ap_table(task: str, per_class: dict[int, AveragePrecision], analysis: ErrorAnalysis) -> Table:
    """Make a row for all classes and one for each; the table of boxes has precision and recall, too."""
    header = ["class", "AP", "AP50", "AP75", "small", "medium", "large", "objects"]
    if task == "bbox":
        header += ["precision (%)", "recall (%)"]

    def row(name: str, ap: AveragePrecision, curve: ScoreCurve) -> list[object]:
        shares = _precision_and_recall(curve, analysis.threshold).values() if task == "bbox" else ()
        return [name, *ap, curve.num_gt, *shares]

    label_map = analysis.label_map
    classes = zip(label_map.names, label_map.ids, analysis.class_curves, strict=True)
    rows = [row("all classes", mean_average_precision(per_class), analysis.curve)]
    rows += [row(name, per_class[category_id], curve) for name, category_id, curve in classes]
    return Table(f"AP of {TASKS[task]}", header, rows, bars=(1,))


def _confusion_table(analysis: ErrorAnalysis) -> ConfusionTable | None:
    """Tabulate several classes; of many, those with the most objects without a true positive."""
    names, counts = analysis.label_map.names, analysis.confusion
    if len(names) == 1:
        return None
    num_unmatched = Counter(dict.fromkeys(range(len(names)), 0))
    for (gt_class, pred_class), count in counts.items():
        if gt_class is not None and gt_class != pred_class:
            num_unmatched[gt_class] += count
    shown = sorted(label for label, _ in num_unmatched.most_common(MAX_CONFUSED_CLASSES))
    return ConfusionTable([(label, names[label]) for label in shown], counts, len(names))


# ---- images


def _unique_names(records: Sequence[dict]) -> dict[str, str]:
    """Name each image after its file, with as many folders as make the names unique, by its path."""
    paths = [Path(record["file_name"]) for record in records]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return {record["file_name"]: name for record, name in zip(records, names, strict=True)}


def _image_card(names: Mapping[str, str], analysis: ErrorAnalysis, image: ImageErrors, *, masks: bool) -> ImageCard:
    return make_image_card(
        names[image.record["file_name"]],
        read_record_image(image.record),
        ground_truth_detections(image.record, masks=masks),
        analysis.predictions(image, masks=masks),
        image.outcomes,
        image.confusion,
        analysis.label_map.names,
    )


def _attention(
    names: Mapping[str, str], cfg: CfgNode, model: nn.Module, dataset: Dataset, analysis: ErrorAnalysis
) -> dict[str, str]:
    """Draw the attention in images with predictions, from the worst to the best, by image name."""
    records = [image.record for image in analysis.images if image.outcomes.pred]
    class_names = list(dataset.label_map.names)
    class_names += [f"class {i}" for i in range(len(class_names), cfg.MODEL.DETR.NUM_CLASSES)]
    mapper = DetrDatasetMapper(cfg, is_train=False)
    drawings = {}
    for record in sample_evenly(records, NUM_ATTENTION_IMAGES):
        instances, queries, attention = predict_with_attention(model, mapper(record), analysis.threshold)
        detections = detections_from_instances(instances[:MAX_ATTENTION_OBJECTS])
        queries = queries[:MAX_ATTENTION_OBJECTS]
        figure = draw_attention(read_record_image(record), attention, detections, queries, class_names)
        drawings[names[record["file_name"]]] = data_uri(figure, "JPEG")
    return drawings
