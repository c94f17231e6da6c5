import json
import logging
import math

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch

import d2_detr  # noqa: F401  (selects the detectron2 to import)

import detectron2
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    inference_context,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.structures import Boxes, BoxMode, Instances

embedded_only = pytest.mark.skipif(
    "embedded" not in detectron2.__version__, reason="only the embedded detectron2 promises it"
)

METRICS = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
LARGE = (0.0, 0.0, 100.0, 100.0)
SMALL = (0.0, 0.0, 20.0, 20.0)


def predictions(*boxes, classes=None, scores=None, masks=False):
    instances = Instances((120, 120))
    instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.scores = torch.tensor(scores or [0.9] * len(boxes), dtype=torch.float32)
    instances.pred_classes = torch.tensor(classes or [0] * len(boxes), dtype=torch.int64)
    if masks:
        instances.pred_masks = torch.zeros(len(boxes), 120, 120, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(instances.pred_masks, boxes, strict=True):
            mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    return instances


@pytest.fixture
def evaluate(tmp_path):
    """Evaluate predictions for image 5, whose ground truth is `boxes` of `classes`."""
    registered = []

    def evaluate(instances, boxes=(LARGE,), classes=None, names=("a", "b"), id_map=None, **kwargs):
        annotations = []
        for (x0, y0, x1, y1), category_id in zip(boxes, classes or [0] * len(boxes), strict=True):
            box = {"bbox": [x0, y0, x1, y1], "bbox_mode": BoxMode.XYXY_ABS, "category_id": category_id}
            annotations.append(box | {"segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]]})
        image = {"file_name": "5.jpg", "image_id": 5, "height": 120, "width": 120, "annotations": annotations}
        name = f"evaluated_{len(registered)}"
        registered.append(name)
        DatasetCatalog.register(name, lambda: [image])
        MetadataCatalog.get(name).set(thing_classes=list(names))
        if id_map:
            MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id = id_map
        evaluator = COCOEvaluator(name, output_dir=str(tmp_path), **kwargs)
        evaluator.reset()
        if instances is not None:
            evaluator.process([image], [instances if isinstance(instances, dict) else {"instances": instances}])
        return evaluator.evaluate()

    yield evaluate
    for name in registered:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_perfect_boxes_have_ap_100_for_their_size_and_class(evaluate):
    results = evaluate(predictions(LARGE))
    assert list(results) == ["bbox"] and list(results["bbox"]) == [*METRICS, "AP-a", "AP-b"]
    expected = [100, 100, 100, math.nan, math.nan, 100, 100, math.nan]
    assert list(results["bbox"].values()) == pytest.approx(expected, nan_ok=True)


def test_ap_is_the_mean_over_ten_thresholds(evaluate):
    # IoU 0.72: true positive at 0.50, 0.55, 0.60, 0.65, 0.70, false positive at the other five
    bbox = evaluate(predictions((0.0, 0, 100, 72)))["bbox"]
    assert (bbox["AP"], bbox["AP50"], bbox["AP75"], bbox["AP-a"]) == pytest.approx((50, 100, 0, 50))


def test_ap_is_the_mean_over_classes_with_objects(evaluate):
    bbox = evaluate(predictions(LARGE), boxes=[LARGE, SMALL], classes=[0, 1])["bbox"]
    assert (bbox["AP"], bbox["AP-a"], bbox["AP-b"]) == pytest.approx((50, 100, 0))
    assert (bbox["APs"], bbox["APl"]) == pytest.approx((0, 100))


def test_a_false_positive_counts_only_if_its_score_is_higher(evaluate):
    boxes = [(50.0, 50, 110, 110), LARGE]
    assert evaluate(predictions(*boxes, scores=[0.1, 0.9]))["bbox"]["AP"] == pytest.approx(100)
    assert evaluate(predictions(*boxes, scores=[0.9, 0.1]))["bbox"]["AP"] == pytest.approx(50)


def test_a_single_class_has_no_separate_ap(evaluate):
    assert list(evaluate(predictions(LARGE), names=["a"])["bbox"]) == METRICS


def test_masks_are_evaluated_if_any_are_predicted(evaluate):
    wrong_box = predictions(LARGE, masks=True)
    wrong_box.pred_boxes = Boxes(torch.tensor([SMALL]))
    results = evaluate(wrong_box)
    assert list(results) == ["bbox", "segm"]
    assert (results["bbox"]["AP"], results["segm"]["AP"], results["segm"]["APl"]) == pytest.approx((0, 100, 100))
    assert list(evaluate(wrong_box, tasks=("segm",))) == ["segm"]


def test_segm_ap_uses_the_size_of_the_mask_not_of_the_box(evaluate):
    # the false positive is a small mask in a large box: it does not count among large objects
    instances = predictions((100.0, 100, 110, 110), LARGE, scores=[0.9, 0.5], masks=True)
    instances.pred_boxes = Boxes(torch.tensor([(20.0, 20, 120, 120), LARGE]))
    results = evaluate(instances)
    assert (results["bbox"]["APl"], results["segm"]["APl"]) == pytest.approx((50, 100))


def test_at_most_100_detections_are_evaluated(evaluate):
    boxes = [(x, y, x + 5.0, y + 5.0) for x in range(0, 110, 10) for y in range(0, 110, 10)][:120]
    # 100 true positives of 120: precision is 1 at the recalls 0.00, ..., 0.83, which are 84 of 101
    assert evaluate(predictions(*boxes), boxes)["bbox"]["AP"] == pytest.approx(100 * 84 / 101)


def test_without_detections_ap_is_undefined(evaluate):
    bbox = evaluate(predictions())["bbox"]
    assert list(bbox) == METRICS and all(math.isnan(value) for value in bbox.values())
    assert evaluate(None) == {}


def test_outputs_without_instances_are_ignored(evaluate):
    assert evaluate({"panoptic_seg": None}) == {}


def test_a_predicted_class_unknown_to_the_dataset_is_an_error(evaluate):
    with pytest.raises(AssertionError, match="2"):
        evaluate(predictions(LARGE, classes=[2]), id_map={10: 0, 20: 1})


def test_a_config_passed_as_tasks_means_all_tasks(evaluate):
    assert list(evaluate(predictions(LARGE, masks=True), tasks=get_cfg())) == ["bbox", "segm"]


@embedded_only
def test_other_coco_tasks_are_refused(evaluate):
    with pytest.raises(NotImplementedError, match="keypoints"):
        evaluate(predictions(LARGE), tasks=("keypoints",))


def test_results_are_written_with_the_ids_of_the_dataset(evaluate, tmp_path):
    evaluate(predictions(SMALL, classes=[1]), id_map={10: 0, 20: 1})
    (result,) = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert list(result) == ["image_id", "category_id", "bbox", "score"]
    assert result == {"image_id": 5, "category_id": 20, "bbox": [0, 0, 20, 20], "score": pytest.approx(0.9)}
    (image,) = torch.load(tmp_path / "instances_predictions.pth", weights_only=True)
    assert image["image_id"] == 5 and image["instances"] == [result | {"category_id": 1}]


def test_a_dataset_without_json_is_written_to_the_output_dir(evaluate, tmp_path):
    evaluate(predictions(LARGE))
    assert [path.name for path in tmp_path.glob("*_coco_format.json")] == ["evaluated_0_coco_format.json"]


def test_a_dataset_without_json_needs_an_output_dir():
    with pytest.raises(ValueError, match="output_dir"):
        COCOEvaluator("without_metadata")


def test_results_of_a_test_set_are_written_but_not_evaluated(evaluate, tmp_path):
    assert evaluate(predictions(LARGE), boxes=[]) == {}
    assert len(json.loads((tmp_path / "coco_instances_results.json").read_text())) == 1


def test_instances_become_coco_results():
    one, two = instances_to_coco_json(predictions(SMALL, (2, 3, 5, 7), classes=[1, 0], masks=True), 8)
    assert (one["image_id"], two["category_id"], two["bbox"]) == (8, 0, [2, 3, 3, 4])
    mask = mask_util.decode(two["segmentation"])
    assert isinstance(two["segmentation"]["counts"], str)
    assert mask.sum() == 12 and np.argwhere(mask).min(axis=0).tolist() == [3, 2]
    assert instances_to_coco_json(predictions(), 8) == []


class Recorder(DatasetEvaluator):
    def __init__(self, results):
        self.calls, self.results = [], results

    def reset(self):
        self.calls.append("reset")

    def process(self, inputs, outputs):
        self.calls.append((inputs, outputs))

    def evaluate(self):
        self.calls.append("evaluate")
        return self.results


class Model(torch.nn.Module):
    def forward(self, inputs):
        return [self.training, torch.is_grad_enabled(), *inputs]


def test_inference_uses_eval_mode_and_no_gradients():
    model, recorder = Model().train(), Recorder({"task": {"AP": 1}})
    assert inference_on_dataset(model, [[1], [2]], recorder) == {"task": {"AP": 1}}
    assert recorder.calls == ["reset", ([1], [False, False, 1]), ([2], [False, False, 2]), "evaluate"]
    assert model.training


def test_a_function_can_be_evaluated_too():
    recorder = Recorder({"task": {"AP": 1}})
    assert inference_on_dataset(lambda batch: batch, [[1], [2]], recorder) == {"task": {"AP": 1}}


def test_an_evaluator_without_results_gives_an_empty_dict():
    assert inference_on_dataset(Model(), [[1]] * 7, Recorder(None)) == {}


@embedded_only
def test_an_error_restores_the_training_mode():
    model = Model().train()
    with pytest.raises(RuntimeError), inference_context(model):
        raise RuntimeError
    assert model.training


def test_per_class_metrics_are_not_logged(caplog, monkeypatch):
    logger = logging.getLogger("detectron2")
    monkeypatch.setattr(logger, "handlers", [])  # of newer pytests also caplog's own
    monkeypatch.setattr(logger, "propagate", True)
    with caplog.at_level(logging.INFO):
        print_csv_format({"bbox": {"AP": 1.0, "AP50": 2.5, "AP-cat": 3.0}, "accuracy": 0.5})
    expected = ["Task: bbox", "AP,AP50", "1.0000,2.5000", "accuracy=0.5"]
    assert caplog.messages == [f"copypaste: {line}" for line in expected]


@pytest.mark.parametrize(
    "expected, metric, good",
    [(39.0, "AP", True), (38.0, "AP", False), (39.0, "AP-none", False), (39.0, "NaN", False), (None, "AP", True)],
)
def test_results_are_verified_against_the_config(expected, metric, good):
    cfg = get_cfg()
    cfg.TEST.EXPECTED_RESULTS = [] if expected is None else [["bbox", metric, expected, 0.5]]
    results = {"bbox": {"AP": 39.4, "NaN": math.nan}}
    if good:
        assert verify_results(cfg, results) is True
    else:
        with pytest.raises(SystemExit) as stop:
            verify_results(cfg, results)
        assert stop.value.code == 1


def test_nested_results_are_flattened_with_slashes():
    assert flatten_results_dict({"a": {"b": {"c": 1}, "d": 2}, "e": 3}) == {"a/b/c": 1, "a/d": 2, "e": 3}
