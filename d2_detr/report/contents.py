"""What a training or an evaluation came to, collected from its folder, its data and its model, as report.html."""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from d2_detr.data.datasets.classes import dataset_label_map, instances_of, names_of_rows
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.engine.distributed import as_many_processes
from d2_detr.evaluation.class_scores import Scores, class_scores, mean_scores
from d2_detr.evaluation.error_analysis import ErrorAnalysis, ImageErrors, analyze_errors
from d2_detr.evaluation.matching import LEAST_F1, Curve
from d2_detr.inference.attention import pixels_of, predict_with_attention, sample_evenly
from d2_detr.report.page import Confusion, Report, Sheet, Table, address, make_sheet, save_report
from d2_detr.report.summary import summary_of
from d2_detr.structures.conversions import detections_from_instances, ground_truth_detections
from d2_detr.utils.files import read_json
from d2_detr.visualization.attention import draw_attention
from d2_detr.visualization.curves import draw_panel, measured_panels
from d2_detr.visualization.figures import page_style, svg
from d2_detr.visualization.score_curves import draw_confidence, draw_precision_recall
from d2_detr.visualization.training_images import FILE_NAME

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

logger = logging.getLogger(__name__)

MOST_SHEETS = 100  # pictures in the gallery
WITH_ATTENTION = 3  # pictures
MOST_CONFUSED = 20  # classes in a table
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
    data = Path(cfg.DATASETS.CUSTOM).name or ", ".join(cfg.DATASETS.TEST[:1])
    seen = cfg.DATASETS.TEST and results_file.is_file()
    validation = _validation(cfg, model, results_file, panoptic_quality) if seen else {}
    report = Report(
        title=f"DETR on {data}: {Path(cfg.OUTPUT_DIR).name}",
        summary=summary_of(cfg, model, weights, metrics, iteration),
        curves=_training_curves(_of_first_set(metrics, cfg)),
        training_pictures=_training_pictures(cfg) if metrics else "",
        weights=str(weights),
        repeat=_repeat(cfg),
        **validation,
    )
    save_report(report, path)
    logger.info("To look at: %s", path)
    if not validation:
        return
    if report.best_f1 < LEAST_F1:
        logger.warning(
            "The model finds hardly anything yet, at whatever threshold (F1 %.2f at best). Begin with the weights of a "
            "trained DETR, train for more epochs, and see in the report's pictures whether the annotations are right",
            report.best_f1,
        )  # fmt: skip
    else:
        logger.info(
            "To use: python tools/predict.py --weights %s --input photos --output found --threshold %.2f",
            shlex.quote(str(weights)), report.threshold,
        )  # fmt: skip


def _validation(cfg: CfgNode, model: nn.Module, results_file: Path, panoptic_quality: float | None) -> dict[str, Any]:
    """The parts of a report that show the model at work."""
    name = instances_of(cfg.DATASETS.TEST[0])
    dataset, label_map, results = DatasetCatalog.get(name), dataset_label_map(name), read_json(results_file)
    annotations = Path(MetadataCatalog.get(name).json_file)
    scores = {task: class_scores(annotations, results, task) for task in TASKS if task == "bbox" or cfg.MODEL.MASK_ON}
    judgement = analyze_errors(dataset, label_map, results)
    figures = {
        f"{measure.upper()} of {TASKS[task]}": getattr(mean_scores(of_task), measure)
        for task, of_task in scores.items() for measure in ("ap", "ap50")
    }  # fmt: skip
    if panoptic_quality is not None:
        figures["panoptic quality"] = panoptic_quality
    shares = _percent(*judgement.of_all.at(judgement.threshold))
    figures |= {f"{name} at {judgement.threshold:.2f}": value for name, value in shares.items()}
    names = _distinct_names(dataset)
    worst = judgement.pictures[:MOST_SHEETS]
    return {
        "figures": figures,
        "tables": [_table(task, of_task, judgement) for task, of_task in scores.items()],
        "score_curves": _score_curves(judgement),
        "confusion": _confusion(judgement),
        "threshold": judgement.threshold,
        "best_f1": judgement.of_all.best_f1,
        "class_names": label_map.names,
        "sheets": [_sheet(names, judgement, picture, masks=cfg.MODEL.MASK_ON) for picture in worst],
        "num_pictures": len(dataset),
        "attention": _attention(names, cfg, model, judgement),
    }


def _repeat(cfg: CfgNode) -> str:
    """The command that does the training again, into a folder of its own."""
    output = Path(cfg.OUTPUT_DIR)
    command = ["python", "tools/train_net.py", "--config", str(output / "config.yaml"), *as_many_processes()]
    return shlex.join([*command, "OUTPUT_DIR", f"{output}_again"])


def _of_first_set(metrics: Sequence[dict], cfg: CfgNode) -> list[dict]:
    """Where there are several test sets, the name of each is in front of its metrics."""
    prefix = f"{cfg.DATASETS.TEST[0]}/" if len(cfg.DATASETS.TEST) > 1 else ""
    return [{name.removeprefix(prefix): value for name, value in line.items()} for line in metrics]


def _percent(precision: float, recall: float) -> dict[str, float]:
    return {"% precision": 100 * precision, "% recall": 100 * recall}


# ---- curves and tables


def _training_curves(metrics: Sequence[dict]) -> list[str]:
    runs = {"training": metrics}
    return [_chart(title, lambda axes, title=title: draw_panel(axes, title, runs)) for title in measured_panels(runs)]


def _training_pictures(cfg: CfgNode) -> str:
    path = Path(cfg.OUTPUT_DIR) / FILE_NAME
    if not path.is_file():
        return ""
    with Image.open(path) as picture:
        return address(picture.convert("RGB"), "JPEG")


def _score_curves(judgement: ErrorAnalysis) -> list[str]:
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


def _table(task: str, scores: Mapping[int, Scores], judgement: ErrorAnalysis) -> Table:
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


def _confusion(judgement: ErrorAnalysis) -> Confusion | None:
    """Of several classes; where they are many, of those with the most objects that were not found."""
    names, taken = judgement.label_map.names, judgement.confusion
    if len(names) == 1:
        return None
    not_found = Counter(dict.fromkeys(range(len(names)), 0))
    for (label, prediction), count in taken.items():
        not_found[label] += count if label != prediction else 0
    del not_found[None]
    shown = sorted(label for label, _ in not_found.most_common(MOST_CONFUSED))
    return Confusion([(label, names[label]) for label in shown], taken)


# ---- pictures


def _distinct_names(dataset: Sequence[dict]) -> dict[str, str]:
    """A name for each picture by its path: that of the file, with as many folders as tell it from the others."""
    paths = [Path(record["file_name"]) for record in dataset]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return {record["file_name"]: name for record, name in zip(dataset, names, strict=True)}


def _sheet(names: Mapping[str, str], judgement: ErrorAnalysis, judged: ImageErrors, *, masks: bool) -> Sheet:
    truth, predicted = ground_truth_detections(judged.record, masks=masks), judgement.predicted(judged, masks=masks)
    name = names[judged.record["file_name"]]
    return make_sheet(
        name, pixels_of(judged.record), truth, predicted, judged.outcomes, judged.confusion, judgement.label_map.names
    )


def _attention(names: Mapping[str, str], cfg: CfgNode, model: nn.Module, judgement: ErrorAnalysis) -> dict[str, str]:
    """Of pictures from the worst to the best where something was found, by name."""
    found = [judged.record for judged in judgement.pictures if judged.outcomes.of_predictions]
    class_names = names_of_rows(cfg, cfg.DATASETS.TEST[0])  # of a panoptic set things and stuff, as the model has them
    mapper = DetrDatasetMapper(cfg, is_train=False)
    images = {}
    for record in sample_evenly(found, WITH_ATTENTION):
        instances, queries, attention = predict_with_attention(model, mapper(record), judgement.threshold)
        objects = detections_from_instances(instances[:MOST_QUERIES])
        figure = draw_attention(pixels_of(record), attention, objects, queries[:MOST_QUERIES], class_names)
        images[names[record["file_name"]]] = address(figure, "JPEG")
    return images
