"""Error analysis of a dataset and its best score threshold."""

import json

import pytest

from d2_detr.data.datasets import load_dataset
from d2_detr.evaluation.error_analysis import analyze_errors, best_threshold
from d2_detr.evaluation.matching import Outcome
from d2_detr.structures.label_map import LabelMap
from tests.shapes import draw_shapes, read

from detectron2.structures import BoxMode

CATS = LabelMap((7,), ("cat",))


def record(image_id, *boxes, crowd=False):
    annotations = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": int(crowd)} for box in boxes
    ]
    return {"image_id": image_id, "height": 100, "width": 100, "annotations": annotations}


def result(image_id, box, score):
    x0, y0, x1, y1 = box
    return {"image_id": image_id, "category_id": 7, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}


def test_worst_images_come_first_and_threshold_has_best_f1():
    box, other = [10, 10, 30, 30], [60, 60, 90, 90]
    records = [record("a", box), record("b", box, other), record("c", box)]
    results = [result("a", box, 0.9), result("b", box, 0.8), result("b", [0, 60, 20, 90], 0.8), result("c", other, 0.1)]
    analysis = analyze_errors(records, CATS, results)
    assert analysis.threshold == 0.8
    assert [image.record["image_id"] for image in analysis.images] == ["b", "c", "a"]
    worst = analysis.images[0]
    assert worst.outcomes.pred == [Outcome.TRUE_POSITIVE, Outcome.BACKGROUND]
    assert worst.outcomes.gt == [Outcome.TRUE_POSITIVE, Outcome.MISSED]
    assert analysis.predictions(worst, masks=False).scores.tolist() == [0.8, 0.8]
    assert analysis.curve.num_gt == 4 and analysis.curve.at(0.8) == (2 / 3, 0.5)
    assert not len(analysis.predictions(analysis.images[1], masks=False).scores), "below the threshold"


@pytest.mark.parametrize(("score", "threshold"), [(0.9971, 0.99), (0.29, 0.29), (1.0, 1.0)])
def test_threshold_is_rounded_down_to_two_digits(score, threshold):
    box = [10, 10, 30, 30]
    analysis = analyze_errors([record("a", box)], CATS, [result("a", box, score)])
    assert analysis.threshold == threshold and analysis.images[0].outcomes.num_errors == 0


def test_without_true_positives_the_threshold_is_a_half():
    records, results = [record("a", [10, 10, 30, 30])], [result("a", [60, 60, 80, 80], 0.7)]
    analysis = analyze_errors(records, CATS, results)
    assert analysis.threshold == 0.5 and analysis.images[0].outcomes.pred == [Outcome.BACKGROUND]


def test_predictions_in_a_crowd_are_not_counted():
    records = [record("a", [0, 0, 50, 50], crowd=True)]
    analysis = analyze_errors(records, CATS, [result("a", [9, 9, 20, 20], 1)])
    assert analysis.curve.num_gt == 0 and len(analysis.curve.scores) == 0
    assert analysis.images[0].outcomes.num_errors == 0


def test_best_threshold_can_be_computed_from_a_results_file(tmp_path):
    root, file = draw_shapes(tmp_path / "coco"), tmp_path / "results.json"
    dataset = load_dataset("custom_val", root)
    results = [
        {name: entry[name] for name in ("image_id", "category_id", "bbox")} | {"score": 0.2 + 0.01 * number}
        for number, entry in enumerate(read(root, "val")["annotations"])
    ]
    file.write_text(json.dumps(results))
    assert best_threshold(dataset, file) == 0.2
    file.write_text(json.dumps([result | {"bbox": [0, 0, 1, 1]} for result in results]))
    assert best_threshold(dataset, file) is None, "no true positive"
    file.write_text("[]")
    assert best_threshold(dataset, file) is None
