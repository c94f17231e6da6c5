"""What a training or an evaluation came to, collected from its folder, its data and its model, as report.html."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from d2_detr.data.classes import dataset_classes, dataset_label_map
from d2_detr.data.dataset_mapper import DetrDatasetMapper
from d2_detr.engine.inference import look_into, pixels_of, spread
from d2_detr.engine.judgement import Judged, Judgement, judge
from d2_detr.engine.objects import instances_found
from d2_detr.engine.report_summary import summary_of
from d2_detr.evaluation.class_scores import Scores, class_scores, mean_scores
from d2_detr.evaluation.outcomes import Curve
from d2_detr.files import read_json
from d2_detr.visualization.attention import draw_attention
from d2_detr.visualization.curves import draw_panel, measured_panels
from d2_detr.visualization.figures import page_style, svg
from d2_detr.visualization.report import Report, Sheet, Table, address, make_sheet, save_report
from d2_detr.visualization.score_curves import draw_confidence, draw_precision_recall

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

logger = logging.getLogger(__name__)

MOST_SHEETS = 100  # pictures in the gallery
WITH_ATTENTION = 3  # pictures
MOST_QUERIES = 10  # whose attention is shown, of a picture
TASKS = {"bbox": "boxes", "segm": "masks"}


def write_report(
    path: Path,
    cfg: CfgNode,
    model: nn.Module,
    weights: str | Path,
    *,
    results_file: Path,
    panoptic_quality: float | None = None,
    metrics: Sequence[dict] = (),
    iteration: int = -1,
) -> None:
    """Write the report of a run as an HTML file; for the main process.

    Args:
        model: what lies in `weights`; not in parallel.
        results_file: its predictions for the first test set, as COCOEvaluator writes them. Where they are missing, for
            want of a test set or of an evaluator, nothing is said of them.
        metrics: the lines of metrics.json of the training; () behind a mere evaluation.
        iteration: of the training, from 0, that the model is from.
    """
    report = Report(
        title=f"DETR on {Path(cfg.DATASETS.CUSTOM).name or ', '.join(cfg.DATASETS.TEST)}: {Path(cfg.OUTPUT_DIR).name}",
        summary=summary_of(cfg, model, weights, metrics, iteration),
        curves=_training_curves(metrics),
        weights=str(weights),
        config=str(Path(cfg.OUTPUT_DIR) / "config.yaml"),
        **(
            _validation(cfg, model, results_file, panoptic_quality)
            if cfg.DATASETS.TEST and results_file.is_file()
            else {}
        ),
    )
    save_report(report, path)
    logger.info("To be looked at: %s", path)


def _validation(cfg: CfgNode, model: nn.Module, results_file: Path, panoptic_quality: float | None) -> dict[str, Any]:
    """The parts of a report that show the model at work."""
    name = cfg.DATASETS.TEST[0]
    name = MetadataCatalog.get(name).get("instances", name)  # of a panoptic one, which has its things
    dataset, label_map, results = DatasetCatalog.get(name), dataset_label_map(name), read_json(results_file)
    annotations = Path(MetadataCatalog.get(name).json_file)
    scores = {task: class_scores(annotations, results, task) for task in TASKS if task == "bbox" or cfg.MODEL.MASK_ON}
    judgement = judge(dataset, label_map, results)
    figures = {
        f"{measure.upper()} of {TASKS[task]}": getattr(mean_scores(of_task), measure)
        for task, of_task in scores.items() for measure in ("ap", "ap50")
    }  # fmt: skip
    if panoptic_quality is not None:
        figures["panoptic quality"] = panoptic_quality
    precision, recall = judgement.of_all.at(judgement.threshold)
    worst = judgement.pictures[:MOST_SHEETS]
    return {
        "figures": figures | _percent(precision, recall),
        "tables": [_table(task, of_task, judgement) for task, of_task in scores.items()],
        "score_curves": _score_curves(judgement),
        "threshold": judgement.threshold,
        "class_names": label_map.names,
        "sheets": [_sheet(judgement, picture, masks=cfg.MODEL.MASK_ON) for picture in worst],
        "num_pictures": len(dataset),
        "attention": _attention(cfg, model, judgement),
    }


def _percent(precision: float, recall: float) -> dict[str, float]:
    return {"% precision": 100 * precision, "% recall": 100 * recall}


# ---- curves and tables


def _training_curves(metrics: Sequence[dict]) -> list[str]:
    runs = {"training": metrics}
    return [_chart(title, lambda axes, title=title: draw_panel(axes, title, runs)) for title in measured_panels(runs)]


def _score_curves(judgement: Judgement) -> list[str]:
    named = zip(judgement.label_map.names, judgement.of_classes, strict=True)
    of_classes = {name: of_class for name, of_class in named if of_class.num_objects}
    return [
        _chart("precision and recall", lambda axes: draw_precision_recall(axes, of_classes, judgement.of_all), width=5),
        _chart("precision, recall and F1", lambda axes: draw_confidence(axes, judgement.of_all), width=5),
    ]


def _chart(title: str, draw: Callable[[Axes], None], *, width: float = 4) -> str:
    with page_style():
        figure = Figure(figsize=(width, 3), layout="constrained")
        draw(figure.subplots())
        return svg(figure, title)


def _table(task: str, scores: Mapping[int, Scores], judgement: Judgement) -> Table:
    """A row for all classes and one for each; of the boxes with precision and recall."""
    named = zip(judgement.label_map.names, judgement.label_map.ids, judgement.of_classes, strict=True)
    classes = [(name, scores[category_id], of_class) for name, category_id, of_class in named]
    header = ["class", "AP", "AP50", "AP75", "small", "medium", "large", "objects"]
    if task == "bbox":
        header += ["% precision", "% recall"]

    def row(name: str, of_class: Scores, curve: Curve) -> list[object]:
        shares = _percent(*curve.at(judgement.threshold)).values() if task == "bbox" else ()
        return [name, *of_class, curve.num_objects, *shares]

    rows = [row("all classes", mean_scores(scores), judgement.of_all), *(row(*entry) for entry in classes)]
    return Table(f"AP of {TASKS[task]}", header, rows, bars=(1,))


# ---- pictures


def _sheet(judgement: Judgement, judged: Judged, *, masks: bool) -> Sheet:
    truth, predicted = judgement.truth(judged, masks=masks), judgement.predicted(judged, masks=masks)
    path = Path(judged.record["file_name"])
    return make_sheet(path.name, pixels_of(judged.record), truth, predicted, judged.outcomes, judgement.label_map.names)


def _attention(cfg: CfgNode, model: nn.Module, judgement: Judgement) -> dict[str, str]:
    """Of pictures from the worst to the best where something was found, by name."""
    found = [judged.record for judged in judgement.pictures if judged.outcomes.of_predictions]
    names = dataset_classes(cfg.DATASETS.TEST[0])  # of a panoptic one things and stuff, as the model has them
    mapper = DetrDatasetMapper(cfg, is_train=False)
    images = {}
    for record in spread(found, WITH_ATTENTION):
        instances, queries, attention = look_into(model, mapper(record), judgement.threshold)
        objects = instances_found(instances[:MOST_QUERIES])
        figure = draw_attention(pixels_of(record), attention, objects, queries[:MOST_QUERIES], names)
        images[Path(record["file_name"]).name] = address(figure, "JPEG")
    return images
