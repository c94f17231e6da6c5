"""COCO's average precision (AP) of boxes and instance masks, in percent."""

import contextlib
import io
import itertools
import json
import logging
import math
import os
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2._missing import missing
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.build import table_in_columns
from detectron2.data.datasets.coco import convert_to_coco_json, read_coco
from detectron2.structures import BoxMode, Instances
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager, atomic_write
from detectron2.utils.logger import create_small_table

from .evaluator import DatasetEvaluator

logger = logging.getLogger(__name__)

_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # in the order of COCOeval.stats


class COCOEvaluator(DatasetEvaluator):
    """Compute AP of "bbox" and, if masks are predicted, "segm", or of `tasks`.

    Write instances_predictions.pth (a list per image, with contiguous category ids) and coco_instances_results.json
    (COCO's result format, with the ids of the dataset) to `output_dir`. A dataset without a COCO JSON file is written
    there as {dataset_name}_coco_format.json, unless that exists. `use_fast_impl` has no effect.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: tuple[str, ...] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        use_fast_impl: bool = True,
    ):
        self._tasks = None if isinstance(tasks, CfgNode) else tasks  # older scripts pass the config here
        self._distributed = distributed
        self._output_dir = output_dir
        self._metadata = MetadataCatalog.get(dataset_name)
        if not hasattr(self._metadata, "json_file"):
            if output_dir is None:
                raise ValueError(f"Dataset '{dataset_name}' has no COCO JSON file; pass output_dir to write one")
            json_file = os.path.join(output_dir, f"{dataset_name}_coco_format.json")
            convert_to_coco_json(dataset_name, json_file)
            self._metadata.json_file = json_file
        self._coco = read_coco(self._metadata.json_file)
        self._predictions: list[dict] = []

    def reset(self) -> None:
        self._predictions = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Collect the "instances" of each output, with the "image_id" of its input."""
        for image, output in zip(inputs, outputs, strict=True):
            if "instances" in output:
                instances = instances_to_coco_json(output["instances"].to("cpu"), image["image_id"])
                self._predictions.append({"image_id": image["image_id"], "instances": instances})

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Return {task: {"AP", "AP50", "AP75", "APs", "APm", "APl", "AP-<class>", ...}}.

        Undefined metrics are NaN. Other processes return {}, as does a test set without annotations.
        """
        predictions = self._predictions
        if self._distributed:
            predictions = list(itertools.chain(*comm.gather(predictions)))
            if not comm.is_main_process():
                return {}
        if not predictions:
            logger.warning("COCOEvaluator got no predictions")
            return {}
        results = self._with_original_ids([r for prediction in predictions for r in prediction["instances"]])
        if self._output_dir:
            PathManager.mkdirs(self._output_dir)
            with atomic_write(os.path.join(self._output_dir, "instances_predictions.pth"), "wb") as f:
                torch.save(predictions, f)
            with atomic_write(os.path.join(self._output_dir, "coco_instances_results.json"), "w") as f:
                json.dump(results, f)
        if "annotations" not in self._coco.dataset:
            logger.info("The dataset has no annotations; nothing is evaluated")
            return {}
        tasks = self._tasks or {"bbox"} | {"segm" for result in results if "segmentation" in result}
        return {task: self._evaluate_task(task, results) for task in sorted(tasks)}

    def _with_original_ids(self, results: list[dict]) -> list[dict]:
        id_map = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if id_map is None:
            return results
        original_ids = {contiguous_id: category_id for category_id, contiguous_id in id_map.items()}
        unknown = {result["category_id"] for result in results} - original_ids.keys()
        assert not unknown, f"Predicted classes {sorted(unknown)}: expected 0..{len(id_map) - 1}"
        return [result | {"category_id": original_ids[result["category_id"]]} for result in results]

    def _evaluate_task(self, task: str, results: list[dict]) -> dict[str, float]:
        if task not in ("bbox", "segm"):
            raise NotImplementedError(missing(f"the COCO task '{task}'"))
        if not results:  # not supported by pycocotools
            logger.warning("No detections, hence no AP")
            return dict.fromkeys(_METRICS, math.nan)
        coco_eval = _run_coco_eval(self._coco, results, task)
        percent = [float(stat * 100) if stat >= 0 else math.nan for stat in coco_eval.stats]
        ap = dict(zip(_METRICS, percent, strict=False))
        logger.info(f"Evaluation results for {task}:\n{create_small_table(ap)}")
        classes = self._metadata.get("thing_classes", [])
        if len(classes) <= 1:
            return ap
        precision = coco_eval.eval["precision"][:, :, :, 0, -1]  # (IoU thresholds, recalls, categories) for all areas
        per_category = {name: _mean_percent(precision[:, :, i]) for i, name in enumerate(classes)}
        table = table_in_columns(list(per_category.items()), ("category", "AP"), floatfmt=".3f")
        logger.info(f"Per-category {task} AP:\n{table}")
        return ap | {f"AP-{name}": value for name, value in per_category.items()}


def _run_coco_eval(coco: COCO, results: list[dict], task: str) -> COCOeval:
    # Copies, because pycocotools changes them; without boxes, so that it takes the area of a mask from the mask.
    results = [{key: result[key] for key in result if task == "bbox" or key != "bbox"} for result in results]
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval = COCOeval(coco, coco.loadRes(results), task)
        coco_eval.evaluate()
        coco_eval.accumulate()
    with contextlib.redirect_stdout(io.StringIO()) as summary:
        coco_eval.summarize()
    logger.info(f"COCO's summary for {task}:\n{summary.getvalue().rstrip()}")
    return coco_eval


def _mean_percent(precision: np.ndarray) -> float:
    """Average the defined entries; COCOeval sets the others to -1."""
    defined = precision[precision > -1]
    return float(defined.mean() * 100) if defined.size else math.nan


def instances_to_coco_json(instances: Instances, img_id: int) -> list[dict[str, Any]]:
    """Convert the predictions for one image to COCO's result format."""
    xywh = BoxMode.convert(instances.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
    columns = (instances.pred_classes.tolist(), xywh, instances.scores.tolist())
    results = [
        {"image_id": img_id, "category_id": category_id, "bbox": bbox, "score": score}
        for category_id, bbox, score in zip(*columns, strict=True)
    ]
    if instances.has("pred_masks"):
        for result, mask in zip(results, instances.pred_masks, strict=True):
            rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
            result["segmentation"] = rle | {"counts": rle["counts"].decode()}
    return results
