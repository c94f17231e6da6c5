"""The report that a training ends with, and what it says of the predictions."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from d2_detr.checkpoint.class_head import LabelMap
from d2_detr.data.panoptic_from_instances import make_panoptic
from d2_detr.engine import Trainer, load_config, setup
from d2_detr.engine.judgement import judge
from d2_detr.evaluation.class_scores import class_scores, mean_scores
from d2_detr.evaluation.outcomes import Curve, Outcome
from tests.shapes import draw_shapes, read

from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

CONFIG = "detr_compact_balloon.yaml"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw_shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def opts(tiny_opts):
    return [*tiny_opts, "TEST.REPORT", "True", "SOLVER.MAX_ITER", "4", "SOLVER.STEPS", "()"]


def trained(root, *opts):
    trainer = Trainer(setup(load_config(CONFIG, opts, str(root))))
    trainer.resume_or_load(resume=False)
    trainer.train()
    return trainer


def sections(folder):
    return re.findall(r"<section id=\"(\w+)\"", (folder / "report.html").read_text())


def test_a_training_ends_with_the_report_of_its_last_model(root, opts, tmp_path):
    trainer = trained(root, *opts)
    text = (tmp_path / "report.html").read_text()
    assert sections(tmp_path)[:5] == ["summary", "training", "scores", "threshold", "gallery"]
    assert "the model of iteration 4, the last" in text and f"{tmp_path}/model_final.pth" in text
    assert f"{trainer._last_eval_results['bbox']['AP']:.1f}" in text
    for name in ("disc", "square", "triangle", "00001.png", "00003.png"):
        assert name in text


def test_the_report_is_of_the_best_model(root, opts, tmp_path, monkeypatch):
    ap = iter([30.0, 20.0])
    evaluate = Trainer.test
    monkeypatch.setattr(Trainer, "test", lambda self, cfg, model: evaluate(cfg, model) | {"bbox": {"AP": next(ap)}})
    trained(root, *opts, "TEST.EVAL_PERIOD", "2")
    text = (tmp_path / "report.html").read_text()
    assert "the model of iteration 2, the best" in text and f"{tmp_path}/model_best.pth" in text
    kept = json.loads((tmp_path / "model_best_results.json").read_text())
    last = json.loads((tmp_path / "inference/coco_instances_results.json").read_text())
    assert kept and kept != last


def test_masks_stuff_and_attention_are_shown_where_something_is_found(tmp_path, opts, monkeypatch):
    root = draw_shapes(tmp_path / "coco")
    for split in ("train", "val"):
        make_panoptic(root / f"annotations/custom_{split}.json")
    monkeypatch.setattr(Curve, "best_threshold", 0.0)  # nobody has learnt anything in four iterations
    masks = "MODEL.MASK_ON True MODEL.DETR.PANOPTIC_ON True INPUT.MASK_FORMAT bitmask MODEL.DETR.HIDDEN_DIM 128".split()
    trained(root, *opts, *masks, "MODEL.DETR.NHEADS", "8", "OUTPUT_DIR", str(tmp_path / "run"))
    text = (tmp_path / "run" / "report.html").read_text()
    assert sections(tmp_path / "run")[-1] == "attention"
    assert "AP of masks" in text and "panoptic quality" in text and text.count("data:image/png;base64") >= 6


def test_without_a_test_set_there_are_the_curves(root, opts, tmp_path):
    trained(root, *opts, "DATASETS.TEST", "()")
    assert sections(tmp_path) == ["summary", "training"]


def test_of_several_test_sets_the_first_is_shown_and_each_has_a_folder(root, opts, tmp_path):
    trained(root, *opts, "DATASETS.TEST", "('custom_val', 'custom_train')")
    assert "on the 3 validation pictures" in (tmp_path / "report.html").read_text()
    for name in ("custom_val", "custom_train"):
        assert (tmp_path / "inference" / name / "coco_instances_results.json").is_file()


def test_no_report_where_none_is_wanted(root, opts, tmp_path):
    trained(root, *opts, "TEST.REPORT", "False")
    assert not (tmp_path / "report.html").exists()


# ---- scores by class


def results_of(truth, *, shift=0, score=0.9):
    return [
        {
            "image_id": entry["image_id"], "category_id": entry["category_id"], "score": score,
            "bbox": [entry["bbox"][0] + shift, *entry["bbox"][1:]],
        }
        for entry in truth["annotations"]
    ]  # fmt: skip


def test_what_is_found_exactly_has_100_and_missing_sizes_have_none(root, tmp_path):
    truth = read(root, "val")
    for entry in truth["annotations"]:
        entry["id"] += 1  # pycocotools takes an object of id 0 for none
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(truth))
    scores = class_scores(file, results_of(truth), "bbox")
    assert list(scores) == [3, 7, 20]
    assert all(of_class.ap == pytest.approx(100) and math.isnan(of_class.ap_large) for of_class in scores.values())
    assert mean_scores(class_scores(file, [], "bbox")).ap == 0


def test_the_mean_is_what_the_evaluation_reports(root, opts, tmp_path):
    trainer = trained(root, *opts)
    results = json.loads((tmp_path / "inference/coco_instances_results.json").read_text())
    mean = mean_scores(class_scores(Path(MetadataCatalog.get("custom_val").json_file), results, "bbox"))
    reported = trainer._last_eval_results["bbox"]
    for ours, theirs in zip(mean, ("AP", "AP50", "AP75", "APs", "APm", "APl"), strict=True):
        np.testing.assert_allclose(ours, reported[theirs], rtol=1e-6, equal_nan=True)


# ---- judgement


def record(image_id, *boxes, crowd=False):
    annotations = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": int(crowd)} for box in boxes
    ]
    return {"image_id": image_id, "height": 100, "width": 100, "annotations": annotations}


def result(image_id, box, score):
    x0, y0, x1, y1 = box
    return {"image_id": image_id, "category_id": 7, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}


def test_the_worst_pictures_come_first_and_the_threshold_has_the_best_f1():
    box, other = [10, 10, 30, 30], [60, 60, 90, 90]
    dataset = [record("a", box), record("b", box, other), record("c", box)]
    results = [result("a", box, 0.9), result("b", box, 0.8), result("b", [0, 60, 20, 90], 0.8), result("c", other, 0.1)]
    judgement = judge(dataset, LabelMap((7,), ("cat",)), results)
    assert judgement.threshold == 0.8
    assert [picture.record["image_id"] for picture in judgement.pictures] == ["b", "c", "a"]
    worst = judgement.pictures[0]
    assert worst.outcomes.of_predictions == [Outcome.FOUND, Outcome.FALSE]
    assert worst.outcomes.of_objects == [Outcome.FOUND, Outcome.MISSED]
    assert judgement.predicted(worst, masks=False).scores.tolist() == [0.8, 0.8]
    assert judgement.of_all.num_objects == 4 and judgement.of_all.at(0.8) == (2 / 3, 0.5)
    assert not len(judgement.predicted(judgement.pictures[1], masks=False).scores), "below the threshold"


def test_what_lies_in_a_crowd_is_neither_found_nor_false():
    judgement = judge(
        [record("a", [0, 0, 50, 50], crowd=True)], LabelMap((7,), ("cat",)), [result("a", [9, 9, 20, 20], 1)]
    )
    assert judgement.of_all.num_objects == 0 and len(judgement.of_all.scores) == 0
    assert judgement.pictures[0].outcomes.mistakes == 0
