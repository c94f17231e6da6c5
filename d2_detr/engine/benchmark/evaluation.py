"""Speed of a whole evaluation: images from files, the model, detections, average precision."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from d2_detr.config.keys import CUSTOM_VAL
from d2_detr.engine.benchmark.contestants import Contestant, Ours
from d2_detr.engine.benchmark.drawn import drawn_dataset
from d2_detr.engine.benchmark.hugging_face import HuggingFace
from d2_detr.engine.benchmark.measure import time_call
from d2_detr.evaluation.evaluate import evaluate_model
from d2_detr.structures.dataset import Dataset

from detectron2.config import CfgNode

SIDE = 640  # of the images, in pixels
WARM_UP_IMAGES = 2


def measure_evaluation(
    cfg: CfgNode, contestants: Iterable[Contestant], num_images: int, *, side: int = SIDE
) -> dict[str, float]:
    """Return images per second by name: of this project's evaluation, and of transformers' models with pycocotools.

    Both read one image at a time in the process of the model. This project also computes the validation losses.

    Args:
        side: width and height in pixels of the images, which are not resized.
    """
    speeds = {}
    with tempfile.TemporaryDirectory() as folder:
        warm_up = drawn_dataset(Path(folder) / "warm_up", WARM_UP_IMAGES, side, evaluated=True)
        dataset = drawn_dataset(Path(folder) / "images", num_images, side, evaluated=True)
        cfg = _evaluation_config(cfg, side, folder)
        for contestant in contestants:
            evaluate = _evaluation(cfg, contestant)
            if evaluate is not None:
                evaluate(warm_up)
                device = next(contestant.model.parameters()).device
                speeds[contestant.name] = num_images / time_call(partial(evaluate, dataset), device)
    return speeds


def _evaluation(cfg: CfgNode, contestant: Contestant) -> Callable[[Dataset], object] | None:
    """Return what evaluates a contestant on a dataset; None for what has no evaluation of its own to compare."""
    if isinstance(contestant, Ours):
        return lambda dataset: evaluate_model(cfg, contestant.model, [dataset], quiet=True)
    if isinstance(contestant, HuggingFace) and contestant.detects:
        return lambda dataset: _evaluate_hugging_face(contestant, dataset, cfg.INPUT.MIN_SIZE_TEST)
    return None


def _evaluation_config(cfg: CfgNode, side: int, folder: str) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR, cfg.DATASETS.TEST, cfg.DATALOADER.NUM_WORKERS = folder, (CUSTOM_VAL,), 0
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = side
    return cfg


@torch.no_grad()
def _evaluate_hugging_face(contestant: HuggingFace, dataset: Dataset, side: int) -> None:
    from transformers import DetrImageProcessor

    processor = DetrImageProcessor(size={"shortest_edge": side, "longest_edge": side})
    model, category_ids, results = contestant.model.eval(), dataset.label_map.ids, []
    for record in tqdm(dataset.records, contestant.name, unit=" images"):
        with Image.open(record["file_name"]) as image:
            inputs = processor(images=image.convert("RGB"), return_tensors="pt").to(model.device, model.dtype)
        with contestant.autocast(model.device):
            outputs = model(**inputs)
        sizes_hw = [(record["height"], record["width"])]
        [found] = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes_hw)
        rows = zip(*(found[name].tolist() for name in ("boxes", "scores", "labels")), strict=True)
        results += [
            {
                "image_id": record["image_id"],
                "category_id": category_ids[label],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": score,
            }
            for (x0, y0, x1, y1), score, label in rows
            if label < len(category_ids)
        ]
    if results:
        _average_precision(dataset.json_file, results)


def _average_precision(json_file: Path, results: list[dict]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(json_file))
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
