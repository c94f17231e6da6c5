"""The report that a training ends with, and what it says of the predictions."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from d2_detr.data.datasets.custom import register_custom
from d2_detr.data.formats.panoptic_from_instances import make_panoptic
from d2_detr.engine.trainer import Trainer
from d2_detr.evaluation.class_scores import class_scores, mean_scores
from d2_detr.evaluation.error_analysis import analyze_errors, best_threshold_of
from d2_detr.evaluation.matching import Curve, Outcome
from d2_detr.inference.predictor import Predictor
from d2_detr.structures.conversions import ground_truth_detections
from d2_detr.structures.label_map import LabelMap
from d2_detr.workflows.setup import load_config, setup
from d2_detr.workflows.visualize import visualize
from tests.shapes import draw_shapes, read

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances

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
    trained(root, *opts, "TEST.EVAL_PERIOD", "0")
    text = (tmp_path / "report.html").read_text()
    assert sections(tmp_path)[:5] == ["summary", "training", "scores", "threshold", "gallery"]
    assert (
        "the model of iteration 4, the last" in text
        and "4, with 4 pictures each: 2.67 epochs" in text
        and f"{tmp_path}/model_final.pth" in text
    )
    for name in ("disc", "square", "triangle", "00001.png", "00003.png"):
        assert name in text


def test_the_report_is_of_the_best_model(root, opts, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("d2_detr.report.contents.logger.warning", lambda text, *args: said.append(text % args))
    ap = iter([30.0, 20.0])
    evaluate = Trainer.test
    monkeypatch.setattr(Trainer, "test", lambda self, cfg, model: evaluate(cfg, model) | {"bbox": {"AP": next(ap)}})
    trained(root, *opts, "TEST.EVAL_PERIOD", "2")
    text = (tmp_path / "report.html").read_text()
    assert "the model of iteration 2, the best" in text and f"{tmp_path}/model_best.pth" in text
    kept = json.loads((tmp_path / "model_best_results.json").read_text())
    last = json.loads((tmp_path / "inference/coco_instances_results.json").read_text())
    assert kept and kept != last
    assert len(said) == 1 and said[0].startswith("The model finds hardly anything yet"), "after four iterations"


def test_masks_stuff_and_attention_are_shown_where_something_is_found(tmp_path, opts, monkeypatch):
    root = draw_shapes(tmp_path / "coco")
    for split in ("train", "val"):
        make_panoptic(root / f"annotations/custom_{split}.json")
    monkeypatch.setattr(Curve, "best_threshold", 0.0)  # nobody has learnt anything in four iterations
    monkeypatch.setattr(Curve, "f1", property(lambda self: np.ones_like(self.scores)))
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


def test_a_dataset_of_somebody_s_own_and_a_head_with_rows_to_spare(drawn_balloons, opts, tmp_path):
    """Registered as Detectron2's tutorial does it, without category ids; pictures of the same name, too."""
    for split in ("train", "val"):
        dicts = [dict(record) for record in DatasetCatalog.get(f"balloon_drawn_{split}")]
        for number, entry in enumerate(dicts):
            folder = tmp_path / f"cam{number}"
            folder.mkdir(exist_ok=True)
            shutil.copy(entry["file_name"], folder / "$0001$.jpg")
            entry["file_name"] = f"{folder}//$0001$.jpg"
        DatasetCatalog.register(f"somebody_s_{split}", lambda dicts=dicts: dicts)
        MetadataCatalog.get(f"somebody_s_{split}").set(thing_classes=["_a_$1_$2"])
    try:
        datasets = ("DATASETS.TRAIN", "('somebody_s_train',)", "DATASETS.TEST", "('somebody_s_val',)")
        cfg = load_config(CONFIG, [*opts, *datasets, "MODEL.DETR.NUM_CLASSES", "6"])
        Trainer(setup(cfg)).train()
        weights = ("MODEL.WEIGHTS", str(tmp_path / "model_final.pth"))
        written = visualize(
            load_config(CONFIG, [*opts, *datasets, "MODEL.DETR.NUM_CLASSES", "6", *weights]),
            tmp_path / "look",
            threshold=0,
        )
    finally:
        for split in ("train", "val"):
            DatasetCatalog.remove(f"somebody_s_{split}")
            MetadataCatalog.remove(f"somebody_s_{split}")
    text = (tmp_path / "report.html").read_text()
    assert "cam0/$0001$.jpg" in text and "cam3/$0001$.jpg" in text and "_a_$1_$2" in text
    assert len(list((tmp_path / "look").iterdir())) == 4 + 2 + 2 and all(path.is_file() for path in written)


def test_a_training_is_not_lost_for_its_report(root, opts, tmp_path, monkeypatch):
    monkeypatch.setattr("d2_detr.engine.trainer.write_report", lambda *args, **kwargs: 1 / 0)
    trainer = trained(root, *opts)
    assert trainer.iter == 4 and (tmp_path / "model_final.pth").is_file()
    assert "but not its report" in (tmp_path / "log.txt").read_text()


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


def found_nearly(record, rng):
    """What is in a picture, a little beside itself, and sometimes of another class or not at all."""
    truth = ground_truth_detections(record, masks=True)
    boxes = truth.boxes_xyxy + rng.integers(-3, 4, truth.boxes_xyxy.shape)
    instances = Instances((record["height"], record["width"]))
    instances.pred_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
    instances.pred_classes = torch.as_tensor(np.where(rng.random(len(boxes)) < 0.2, 0, truth.classes))
    instances.scores = torch.as_tensor(rng.random(len(boxes)))
    instances.pred_masks = torch.as_tensor(np.roll(truth.masks, rng.integers(-2, 3), axis=2))
    return instances[torch.as_tensor(rng.random(len(boxes)) < 0.9)]


def test_the_mean_is_what_the_evaluation_reports(tmp_path):
    """Triangles have half the area of their boxes: some are small as masks and medium as boxes."""
    root = draw_shapes(tmp_path / "coco", pictures=(1, 40), size=150)
    register_custom(root)
    dataset = DatasetCatalog.get("custom_val")
    rng = np.random.default_rng(0)
    evaluator = COCOEvaluator("custom_val", ("bbox", "segm"), output_dir=str(tmp_path))
    evaluator.reset()
    evaluator.process(dataset, [{"instances": found_nearly(record, rng)} for record in dataset])
    reported = evaluator.evaluate()
    results = json.loads((tmp_path / "coco_instances_results.json").read_text())
    annotations = Path(MetadataCatalog.get("custom_val").json_file)
    for task in ("bbox", "segm"):
        mean = mean_scores(class_scores(annotations, results, task))
        assert 20 < mean.ap < 95 and 0 < mean.ap_small != mean.ap_medium
        for ours, name in zip(mean, ("AP", "AP50", "AP75", "APs", "APm", "APl"), strict=True):
            np.testing.assert_allclose(ours, reported[task][name], rtol=1e-6, equal_nan=True, err_msg=f"{task} {name}")
    assert set(results[0]) == {"image_id", "category_id", "bbox", "score", "segmentation"}, "left as they were"


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
    judgement = analyze_errors(dataset, LabelMap((7,), ("cat",)), results)
    assert judgement.threshold == 0.8
    assert [picture.record["image_id"] for picture in judgement.pictures] == ["b", "c", "a"]
    worst = judgement.pictures[0]
    assert worst.outcomes.of_predictions == [Outcome.FOUND, Outcome.FALSE]
    assert worst.outcomes.of_objects == [Outcome.FOUND, Outcome.MISSED]
    assert judgement.predicted(worst, masks=False).scores.tolist() == [0.8, 0.8]
    assert judgement.of_all.num_objects == 4 and judgement.of_all.at(0.8) == (2 / 3, 0.5)
    assert not len(judgement.predicted(judgement.pictures[1], masks=False).scores), "below the threshold"


def test_the_best_model_is_saved_with_the_threshold_of_its_predictions(root, opts, tmp_path, monkeypatch):
    """And it is what the predictor takes."""
    asked = []
    monkeypatch.setattr("d2_detr.engine.hooks.checkpoints.best_threshold_of", lambda *args: asked.append(args) or 0.12)
    trained(root, *opts, "TEST.EVAL_PERIOD", "2")
    assert set(asked) == {("custom_val", tmp_path / "inference" / "coco_instances_results.json")}
    assert Predictor(tmp_path / "model_best.pth", device="cpu").threshold == 0.12
    assert Predictor(tmp_path / "model_best.pth", device="cpu", threshold=0.3).threshold == 0.3
    assert Predictor(tmp_path / "model_final.pth", device="cpu").threshold == 0.7


def test_the_threshold_of_a_file_of_results_is_that_of_the_report(root, tmp_path):
    register_custom(root)
    truth = read(root, "val")
    results = [
        {name: entry[name] for name in ("image_id", "category_id", "bbox")} | {"score": 0.2 + 0.01 * number}
        for number, entry in enumerate(truth["annotations"])
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert best_threshold_of("custom_val", tmp_path / "results.json") == 0.2
    (tmp_path / "results.json").write_text(json.dumps([result | {"bbox": [0, 0, 1, 1]} for result in results]))
    assert best_threshold_of("custom_val", tmp_path / "results.json") is None, "of a model that finds nothing"
    (tmp_path / "results.json").write_text("[]")
    assert best_threshold_of("custom_val", tmp_path / "results.json") is None


@pytest.mark.parametrize(("score", "threshold"), [(0.9971, 0.99), (0.29, 0.29), (1.0, 1.0)])
def test_the_threshold_has_two_digits_and_keeps_what_it_was_made_for(score, threshold):
    box = [10, 10, 30, 30]
    judgement = analyze_errors([record("a", box)], LabelMap((7,), ("cat",)), [result("a", box, score)])
    assert judgement.threshold == threshold and judgement.pictures[0].outcomes.mistakes == 0


def test_where_nothing_is_found_one_sees_what_is_there_instead():
    dataset, results = [record("a", [10, 10, 30, 30])], [result("a", [60, 60, 80, 80], 0.7)]
    judgement = analyze_errors(dataset, LabelMap((7,), ("cat",)), results)
    assert judgement.threshold == 0.5 and judgement.pictures[0].outcomes.of_predictions == [Outcome.FALSE]


def test_what_lies_in_a_crowd_is_neither_found_nor_false():
    judgement = analyze_errors(
        [record("a", [0, 0, 50, 50], crowd=True)], LabelMap((7,), ("cat",)), [result("a", [9, 9, 20, 20], 1)]
    )
    assert judgement.of_all.num_objects == 0 and len(judgement.of_all.scores) == 0
    assert judgement.pictures[0].outcomes.mistakes == 0
