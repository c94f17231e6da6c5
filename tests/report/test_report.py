"""Reports of training runs and evaluations."""

import json
import re
import shutil

import numpy as np
import pytest

from d2_detr.config import load_config
from d2_detr.data.datasets import load_dataset
from d2_detr.data.formats.panoptic_from_instances import make_panoptic
from d2_detr.engine.trainer import Trainer
from d2_detr.evaluation.score_curves import ScoreCurve
from d2_detr.inference.predictor import Predictor
from d2_detr.report import contents, results
from d2_detr.report.contents import write_report
from d2_detr.workflows.train import train
from d2_detr.workflows.visualize import visualize
from tests.inference.untrained import untrained_model
from tests.shapes import draw_shapes

from detectron2.data import DatasetCatalog, MetadataCatalog

CONFIG = "detr_compact_balloon.yaml"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw_shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def opts(tiny_opts):
    return [*tiny_opts, "TEST.REPORT", "True", "SOLVER.MAX_ITER", "4", "SOLVER.STEPS", "()"]


def run_training(root, *opts):
    train(load_config(CONFIG, opts, str(root)))


def sections(folder):
    return re.findall(r"<section id=\"(\w+)\"", (folder / "report.html").read_text())


def test_without_evaluations_the_report_shows_the_last_model(root, opts, tmp_path):
    run_training(root, *opts, "TEST.EVAL_PERIOD", "0")
    text = (tmp_path / "report.html").read_text()
    assert sections(tmp_path)[:5] == ["summary", "training", "scores", "threshold", "gallery"]
    assert (
        "last, saved after iteration 4" in text
        and "4, 4 images each, 2.67 epochs" in text
        and f"{tmp_path}/model_final.pth" in text
    )
    for name in ("disc", "square", "triangle", "00001.png", "00003.png"):
        assert name in text


def test_the_report_shows_the_best_model(root, opts, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(contents.logger, "warning", lambda text, *args: warnings.append(text % args))
    ap = iter([30.0, 20.0])
    evaluate = Trainer.test
    monkeypatch.setattr(Trainer, "test", lambda self, cfg, model: evaluate(cfg, model) | {"bbox": {"AP": next(ap)}})
    run_training(root, *opts, "TEST.EVAL_PERIOD", "2")
    text = (tmp_path / "report.html").read_text()
    assert "best, saved after iteration 2" in text and f"{tmp_path}/model_best.pth" in text
    kept = json.loads((tmp_path / "model_best_results.json").read_text())
    last = json.loads((tmp_path / "inference/coco_instances_results.json").read_text())
    assert kept and kept != last
    assert len(warnings) == 1 and warnings[0].startswith("The predictions are not useful"), "only four iterations"
    assert "predict.py" not in text


def test_masks_stuff_and_attention_are_shown(tmp_path, opts, monkeypatch):
    root = draw_shapes(tmp_path / "coco")
    for split in ("train", "val"):
        make_panoptic(root / f"annotations/custom_{split}.json")
    monkeypatch.setattr(ScoreCurve, "best_threshold", 0.0)  # the model learns nothing in four iterations
    monkeypatch.setattr(ScoreCurve, "f1", property(lambda self: np.ones_like(self.scores)))
    masks = "MODEL.MASK_ON True MODEL.DETR.PANOPTIC_ON True INPUT.MASK_FORMAT bitmask MODEL.DETR.HIDDEN_DIM 128".split()
    run_training(root, *opts, *masks, "MODEL.DETR.NHEADS", "8", "OUTPUT_DIR", str(tmp_path / "run"))
    text = (tmp_path / "run" / "report.html").read_text()
    assert sections(tmp_path / "run")[-1] == "attention"
    assert "AP of masks" in text and "panoptic quality" in text and text.count("data:image/png;base64") >= 6


def test_without_a_test_set_only_the_curves_are_shown(root, opts, tmp_path):
    run_training(root, *opts, "DATASETS.TEST", "()")
    assert sections(tmp_path) == ["summary", "training"]


def test_the_first_of_several_test_sets_is_shown(root, opts, tmp_path):
    run_training(root, *opts, "DATASETS.TEST", "('custom_val', 'custom_train')")
    assert "on the 3 images of custom_val" in (tmp_path / "report.html").read_text()
    for name in ("custom_val", "custom_train"):
        assert (tmp_path / "inference" / name / "coco_instances_results.json").is_file()


def test_a_registered_dataset_needs_no_category_ids(drawn_balloons, opts, tmp_path):
    """The dataset is registered as in Detectron2's tutorial.

    File names repeat in several folders, and the class head has more classes than the dataset.
    """
    for split in ("train", "val"):
        dicts = [dict(record) for record in load_dataset(f"balloon_drawn_{split}").records]
        for number, entry in enumerate(dicts):
            folder = tmp_path / f"cam{number}"
            folder.mkdir(exist_ok=True)
            shutil.copy(entry["file_name"], folder / "$0001$.jpg")
            entry["file_name"] = f"{folder}//$0001$.jpg"
        DatasetCatalog.register(f"registered_{split}", lambda dicts=dicts: dicts)
        MetadataCatalog.get(f"registered_{split}").set(thing_classes=["_a_$1_$2"])
    try:
        datasets = ("DATASETS.TRAIN", "('registered_train',)", "DATASETS.TEST", "('registered_val',)")
        cfg = load_config(CONFIG, [*opts, *datasets, "MODEL.DETR.NUM_CLASSES", "6"])
        train(cfg)
        weights = ("MODEL.WEIGHTS", str(tmp_path / "model_final.pth"))
        written = visualize(
            load_config(CONFIG, [*opts, *datasets, "MODEL.DETR.NUM_CLASSES", "6", *weights]),
            tmp_path / "look",
            threshold=0,
        )
    finally:
        for split in ("train", "val"):
            DatasetCatalog.remove(f"registered_{split}")
            MetadataCatalog.remove(f"registered_{split}")
    text = (tmp_path / "report.html").read_text()
    assert "cam0/$0001$.jpg" in text and "cam3/$0001$.jpg" in text and "_a_$1_$2" in text
    assert len(list((tmp_path / "look").iterdir())) == 4 + 2 + 2 and all(path.is_file() for path in written)


def test_a_failing_report_does_not_fail_the_training(root, opts, tmp_path, monkeypatch):
    monkeypatch.setattr("d2_detr.workflows.train.write_report", lambda *args, **kwargs: 1 / 0)
    run_training(root, *opts)
    assert (tmp_path / "model_final.pth").is_file()
    assert "but its report failed" in (tmp_path / "log.txt").read_text()


def test_the_report_can_be_turned_off(root, opts, tmp_path):
    run_training(root, *opts, "TEST.REPORT", "False")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("opts", "steps"),
    [
        (("INPUT.CROP.ENABLED", "True"), "flipped, cropped and resized"),
        (("INPUT.CROP.ENABLED", "False"), "flipped and resized"),
        (("INPUT.CROP.ENABLED", "False", "INPUT.RANDOM_FLIP", "none"), "resized"),
    ],
    ids=["crop", "no_crop", "no_flip"],
)
def test_the_training_images_caption_lists_augmentations(opts, steps):
    caption = contents._training_images_caption(load_config(CONFIG, opts))
    assert caption == f"Training images as the model sees them ({steps}), with their ground truth."


@pytest.fixture
def evaluation_report(root, tmp_path, monkeypatch):
    """Write the report on perfect predictions for a dataset; return its text."""
    model, cfg = untrained_model("DATASETS.CUSTOM", str(root), "OUTPUT_DIR", str(tmp_path))
    monkeypatch.setattr(results, "_attention", lambda *args: {})

    def write(dataset):
        entries = [
            {
                "image_id": record["image_id"], "category_id": dataset.label_map.ids[annotation["category_id"]],
                "bbox": list(annotation["bbox"]), "score": 0.7699 - 0.001 * i,
            }
            for i, record in enumerate(dataset.records) for annotation in record["annotations"]
        ]  # fmt: skip
        (tmp_path / "results.json").write_text(json.dumps(entries))
        write_report(
            tmp_path / "report.html", cfg, model, "my model.pth", dataset=dataset,
            results_file=tmp_path / "results.json",
        )  # fmt: skip
        return (tmp_path / "report.html").read_text()

    return write


def test_all_texts_and_plots_have_the_same_threshold(evaluation_report, root):
    text = evaluation_report(load_dataset("custom_val", root))
    [marked] = re.findall(r"best: (0\.\d+)", text)
    others = re.findall(r"(?:--threshold|score of at least|threshold of)\s+(?:<strong>)?(0\.\d+)", text)
    assert len(others) >= 4 and {marked, *others} == {"0.76"}
    assert f"--weights &#39;my model.pth&#39; --input photos --output detections --threshold {marked}" in text


def test_the_report_of_an_evaluation_names_its_dataset(evaluation_report, root):
    train, val = (load_dataset(f"custom_{split}", root) for split in ("train", "val"))
    assert "on the 3 images of custom_val" in evaluation_report(val)
    text = evaluation_report(train)
    assert "on the 6 images of custom_train" in text and "validation" not in text
    assert "evaluation</th><td>custom_train: 6 images" in text and "training</th>" not in text


def test_the_best_model_is_saved_with_its_threshold(root, opts, tmp_path, monkeypatch):
    """The predictor uses it by default."""
    calls = []
    monkeypatch.setattr(
        "d2_detr.engine.hooks.best.best_threshold",
        lambda dataset, file: calls.append((dataset.name, file)) or 0.12,
    )
    run_training(root, *opts, "TEST.EVAL_PERIOD", "2", "TEST.REPORT", "False")
    assert set(calls) == {("custom_val", tmp_path / "inference" / "coco_instances_results.json")}
    assert Predictor(tmp_path / "model_best.pth", device="cpu").threshold == 0.12
    assert Predictor(tmp_path / "model_best.pth", device="cpu", threshold=0.3).threshold == 0.3
    assert Predictor(tmp_path / "model_final.pth", device="cpu").threshold == 0.7
