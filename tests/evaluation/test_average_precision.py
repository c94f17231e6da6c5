"""AP per class, for perfect predictions and in comparison with Detectron2's evaluator."""

import json
import math

import numpy as np
import pytest
import torch

from d2_detr.data.annotations import ground_truth_detections
from d2_detr.data.datasets import load_dataset
from d2_detr.evaluation.average_precision import average_precision_per_class, mean_average_precision
from tests.shapes import draw_shapes, read

from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances


def perfect_results(coco):
    names = ("image_id", "category_id", "bbox")
    return [{name: entry[name] for name in names} | {"score": 0.9} for entry in coco["annotations"]]


def test_perfect_predictions_have_ap_100_and_nan_for_absent_sizes(tmp_path):
    coco = read(draw_shapes(tmp_path / "coco"), "val")
    for entry in coco["annotations"]:
        entry["id"] += 1  # pycocotools interprets id 0 as no match
    file = tmp_path / "ground_truth.json"
    file.write_text(json.dumps(coco))
    per_class = average_precision_per_class(file, perfect_results(coco), "bbox")
    assert list(per_class) == [3, 7, 20]
    assert all(ap.ap == pytest.approx(100) and math.isnan(ap.ap_large) for ap in per_class.values())
    assert mean_average_precision(average_precision_per_class(file, [], "bbox")).ap == 0


def inaccurate_instances(record, rng):
    """Return the objects of an image, shifted, some with a wrong class or omitted."""
    ground_truth = ground_truth_detections(record, masks=True)
    boxes = ground_truth.boxes_xyxy + rng.integers(-3, 4, ground_truth.boxes_xyxy.shape)
    instances = Instances((record["height"], record["width"]))
    instances.pred_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
    instances.pred_classes = torch.as_tensor(np.where(rng.random(len(boxes)) < 0.2, 0, ground_truth.classes))
    instances.scores = torch.as_tensor(rng.random(len(boxes)))
    instances.pred_masks = torch.as_tensor(np.roll(ground_truth.masks, rng.integers(-2, 3), axis=2))
    return instances[torch.as_tensor(rng.random(len(boxes)) < 0.9)]


def test_mean_over_classes_equals_the_ap_of_coco_evaluator(tmp_path):
    """Triangles have half the area of their boxes: some are small as masks and medium as boxes."""
    dataset = load_dataset("custom_val", draw_shapes(tmp_path / "coco", num_images=(1, 40), size=150))
    rng = np.random.default_rng(0)
    evaluator = COCOEvaluator(dataset.catalog_name, ("bbox", "segm"), output_dir=str(tmp_path))
    evaluator.reset()
    evaluator.process(dataset.records, [{"instances": inaccurate_instances(r, rng)} for r in dataset.records])
    reported = evaluator.evaluate()
    results = json.loads((tmp_path / "coco_instances_results.json").read_text())
    for task in ("bbox", "segm"):
        mean = mean_average_precision(average_precision_per_class(dataset.json_file, results, task))
        assert 20 < mean.ap < 95 and 0 < mean.ap_small != mean.ap_medium
        for ours, name in zip(mean, ("AP", "AP50", "AP75", "APs", "APm", "APl"), strict=True):
            np.testing.assert_allclose(ours, reported[task][name], rtol=1e-6, equal_nan=True, err_msg=f"{task} {name}")
    assert set(results[0]) == {"image_id", "category_id", "bbox", "score", "segmentation"}, "results are not modified"
