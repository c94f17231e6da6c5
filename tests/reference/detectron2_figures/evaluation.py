"""COCO metrics of noisy predictions (seeded) for synthetic annotations."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.reference.detectron2_figures.common import (
    XYXY,
    compressed,
    logged,
    names_below,
    refusal,
    registered,
    temporary_folder,
)

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import COCOEvaluator, print_csv_format
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.structures import Boxes, Instances
from detectron2.utils.logger import create_small_table

COCO_CLASSES = {3: "disc", 7: "square", 20: "triangle"}


def made_up_coco(rng: np.random.RandomState) -> dict:
    """Annotate six images of 300 x 300 pixels with boxes as polygons and one crowd."""
    images = [{"id": i, "file_name": f"{i}.png", "width": 300, "height": 300} for i in (4, 8, 15, 16, 23, 42)]
    annotations = []
    for image, number in zip(images, (7, 5, 0, 6, 4, 8), strict=True):
        for _ in range(number):
            w, h = (int(side) for side in rng.randint(8, 160, 2))
            x, y = int(rng.randint(300 - w)), int(rng.randint(300 - h))
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            ids = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": int(rng.choice([3, 7, 20]))}
            mask = {"segmentation": [polygon], "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            annotations.append(ids | mask)
    crowd = annotations[2]
    crowd |= {"iscrowd": 1, "segmentation": compressed(crowd["segmentation"][0], 300, 300)}
    categories = [{"id": category_id, "name": name} for category_id, name in COCO_CLASSES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def noisy_predictions(coco: dict, image_id: int, rng: np.random.RandomState, masks: bool) -> Instances:
    """Move, repeat and misclassify ground truth; add two false positives."""
    objects = [a for a in coco["annotations"] if a["image_id"] == image_id]
    objects += [a for a in objects if rng.rand() < 0.3]
    xywh = np.array([a["bbox"] for a in objects] + [[10, 10, 50, 60], [100, 150, 30, 20]], np.float64)
    xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1) + rng.normal(0, 3, (len(xywh), 4))
    classes = [[*COCO_CLASSES].index(a["category_id"]) for a in objects] + [0, 2]
    wrong = rng.rand(len(classes)) < 0.15
    instances = Instances((300, 300))
    instances.pred_boxes = Boxes(torch.from_numpy(xyxy).clamp(0, 300))
    instances.scores = torch.from_numpy(rng.permutation(len(classes)) / 64 + 0.01 * image_id / 42).float()
    instances.pred_classes = torch.tensor([(c + w) % 3 for c, w in zip(classes, wrong, strict=True)])
    if masks:
        instances.pred_masks = torch.zeros(len(classes), 300, 300, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(instances.pred_masks, instances.pred_boxes.tensor.int(), strict=True):
            mask[y0 : y1 - 2, x0 + 1 : x1] = True
        instances.pred_masks[-2:, :, 20:] = False  # so that one has a small mask in a larger box
    return instances


def evaluation(
    *,
    masks: bool = False,
    keep: Callable[[Instances], Any] = lambda instances: slice(None),
    change: Callable[[dict], Any] = lambda coco: None,
    **kwargs: Any,
) -> dict:
    """Return results, messages and files of an evaluation.

    `keep` selects predictions of an image, `change` edits the annotations.
    """
    rng = np.random.RandomState(1)
    coco = made_up_coco(rng)
    predictions = {image["id"]: noisy_predictions(coco, image["id"], rng, masks) for image in coco["images"]}
    change(coco)
    with temporary_folder() as folder, registered_coco(coco, folder) as name:
        evaluator = COCOEvaluator(name, output_dir=str(folder / "out"), **kwargs)
        evaluator.reset()
        for image_id, instances in predictions.items():
            evaluator.process([{"image_id": image_id}], [{"instances": instances[keep(instances)]}])
        results = evaluator.evaluate()
        with logged() as messages:
            print_csv_format(results | {"seconds": 0.25})
        return {"results": results, "messages": messages, "files": evaluation_files(folder / "out")}


@contextmanager
def registered_coco(coco: dict, folder: Path) -> Iterator[str]:
    """Register a file and load it once, which sets the metadata."""
    (folder / "coco.json").write_text(json.dumps(coco))
    register_coco_instances("figures_evaluated", {}, str(folder / "coco.json"), "")
    DatasetCatalog.get("figures_evaluated")
    try:
        yield "figures_evaluated"
    finally:
        for catalog in (DatasetCatalog, MetadataCatalog):
            catalog.remove("figures_evaluated")


def evaluation_files(folder: Path) -> dict:
    detections = json.loads((folder / "coco_instances_results.json").read_text())
    predictions = torch.load(folder / "instances_predictions.pth", weights_only=True)
    number = [len(prediction["instances"]) for prediction in predictions]
    first = predictions[0]["instances"][:1]
    for detection in detections:
        detection["bbox"] = [round(x, 6) for x in detection["bbox"]]
        detection["score"] = round(detection["score"], 6)
    return {"names": names_below(folder), "detections": detections, "number in .pth": number, "first in .pth": first}


def coco_evaluation() -> dict:
    in_full = {"boxes": evaluation(), "boxes and masks": evaluation(masks=True)}
    results = {
        "confident": evaluation(keep=lambda instances: instances.scores > 0.1),
        "one class found": evaluation(keep=lambda instances: instances.pred_classes == 1),
        "nothing found": evaluation(keep=lambda instances: slice(0, 0)),
        "masks only": evaluation(masks=True, tasks=("segm",)), "the official way": evaluation(use_fast_impl=False),
        "in one process": evaluation(distributed=False),
        "one class": evaluation(change=only_discs, keep=lambda instances: instances.pred_classes == 0),
        "a test set": evaluation(change=lambda coco: coco.pop("annotations")),
        "no crowd": evaluation(change=lambda coco: coco["annotations"].pop(2)),
    }  # fmt: skip
    return in_full | {name: {k: v for k, v in one.items() if k != "files"} for name, one in results.items()} | {
        "made of dicts": evaluation_of_dicts(), "without a folder": refusal(COCOEvaluator, "nothing_is_known_of_this"),
        "flat": flatten_results_dict(in_full["boxes"]["results"] | {"a": {"b": {"c": 1}}}),
        "table": create_small_table({"AP": 12.3456, "AP50": math.nan, "number": 3}).splitlines(),
    }  # fmt: skip


def only_discs(coco: dict) -> None:
    coco["categories"] = coco["categories"][:1]
    coco["annotations"] = [a for a in coco["annotations"] if a["category_id"] == 3]


def evaluation_of_dicts() -> dict:
    """Evaluate a dataset without a JSON file, which is then written."""
    box = {"bbox": [10.0, 20, 60, 90], "bbox_mode": XYXY, "category_id": 1}
    image = {"file_name": "5.jpg", "image_id": 5, "height": 120, "width": 120, "annotations": [box]}
    found = Instances((120, 120), pred_boxes=Boxes([[10, 20, 60, 80]]), scores=torch.tensor([0.75]))
    found.pred_classes = torch.tensor([1])
    with registered([image], thing_classes=["a", "b"]) as name, temporary_folder() as folder:
        evaluator = COCOEvaluator(name, output_dir=str(folder))
        evaluator.reset()
        evaluator.process([image], [{"instances": found}])
        return {"results": evaluator.evaluate(), "names": names_below(folder)}


GROUPS = (coco_evaluation,)
