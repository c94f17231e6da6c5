"""Fine-tuning in one line, in the words of this plugin and of native DETR."""

import argparse
import json
import re

import pytest
import torch
import yaml

from d2_detr.utils.errors import InputError
from d2_detr.workflows.finetune import finetune, finetune_config, learning_rate
from d2_detr.workflows.setup import load_config
from tests.shapes import draw_shapes
from tests.tools.command_line import run

TINY = (
    "MODEL.DEVICE cpu MODEL.DETR.AUTOCAST off INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 "
    "DATALOADER.NUM_WORKERS 0"
).split()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw_shapes(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, drawn_balloons):
    """A small model of balloons: another class count, another size than the published ones."""
    folder = tmp_path_factory.mktemp("balloons")
    small = (
        f"OUTPUT_DIR {folder} MODEL.DETR.DIM_FEEDFORWARD 32 "
        "MODEL.DETR.ENC_LAYERS 1 MODEL.DETR.DEC_LAYERS 2 SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 1 SOLVER.STEPS () "
        "TEST.REPORT False"
    ).split()
    config = ("--config", "detr_compact_balloon_drawn.yaml")
    status, output = run(drawn_balloons.parent, "train_net.py", *config, *TINY, *small)
    assert status == 0, output
    return folder / "model_final.pth"


@pytest.fixture(scope="module")
def finetuned(root, trained, tmp_path_factory):
    """Folder and console of `finetune.py` with two epochs of six pictures, two at a time."""
    folder = tmp_path_factory.mktemp("finetuned") / "run"
    status, output = run(
        folder.parent, "finetune.py", "--data", root, "--weights", trained, "--epochs", 2, "--output-dir", folder, *TINY
    )
    assert status == 0, output
    return folder, output


def config_of(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())


def test_one_line_trains_evaluates_and_reports(finetuned):
    folder, output = finetuned
    assert "has the layout `custom`" in output and re.search(r"20 +2 +triangle", output)
    assert "Epochs: 2 of 6 pictures, 2 at a time, so 6 iterations; learning rate 0.0001, lowered at 5" in output
    evaluations = re.findall(
        r"Evaluation at iteration (\d), epoch \d: AP [\d.]+  AP50 .*total_loss .*class_error", output
    )
    assert evaluations == ["3", "6"], "one for each epoch"
    assert re.search(r"class_error [\d.]+  cardinality_error [\d.]+  \(disc [\d.]+, square [\d.]+, triangle", output)
    assert "copypaste" not in output and "Average Precision" not in output
    log = (folder / "log.txt").read_text()
    assert log.count("copypaste: Task: bbox") == 2 and "Average Precision  (AP) @[ IoU=0.50 " in log
    assert {"report.html", "model_best.pth", "model_final.pth", "metrics.json"} <= {p.name for p in folder.iterdir()}
    assert "The model finds hardly anything yet" in output and "To use" not in output, "after six iterations"
    assert f"--config {folder}/config.yaml OUTPUT_DIR {folder}_again" in (folder / "report.html").read_text()
    names = torch.load(folder / "model_final.pth", weights_only=True)["label_map"]
    assert names == {"ids": [3, 7, 20], "names": ["disc", "square", "triangle"]}


def test_model_and_pictures_are_those_of_the_weights_and_the_task_is_that_of_the_data(finetuned, trained):
    cfg = config_of(finetuned[0])
    assert cfg["MODEL"]["DETR"]["HIDDEN_DIM"] == 128 and cfg["MODEL"]["RESNETS"]["DEPTH"] == 18
    assert cfg["INPUT"]["MAX_SIZE_TRAIN"] == 192 and cfg["MODEL"]["DETR"]["NUM_CLASSES"] == 3
    assert cfg["MODEL"]["WEIGHTS"] == str(trained)
    assert cfg["MODEL"]["RESNETS"]["NORM"] == "FrozenBN", "though the weights were trained with statistics of their own"
    assert cfg["SOLVER"]["BASE_LR"] == learning_rate(2)
    assert (cfg["SOLVER"]["STEPS"], cfg["TEST"]["EVAL_PERIOD"]) == ([5], 3)


def test_the_config_that_it_wrote_repeats_the_run(finetuned, tmp_path):
    config = ("--config", finetuned[0] / "config.yaml")
    status, output = run(tmp_path, "train_net.py", *config, "OUTPUT_DIR", tmp_path / "again", "TEST.REPORT", "False")
    assert status == 0, output
    first, again = (config_of(folder) for folder in (finetuned[0], tmp_path / "again"))
    first["OUTPUT_DIR"], first["TEST"]["REPORT"] = again["OUTPUT_DIR"], False
    assert first == again and first["SEED"] >= 0
    figures = [
        [{name: value for name, value in json.loads(line).items() if "loss" in name} for line in metrics.open()]
        for metrics in (finetuned[0] / "metrics.json", tmp_path / "again" / "metrics.json")
    ]
    assert figures[0] == figures[1] and "validation/loss_giou" in figures[0][0], "to the last digit"


def test_its_config_or_its_weights_are_enough_to_evaluate_it_and_to_look_at_it(finetuned, root, tmp_path):
    folder, _ = finetuned
    ways = {
        "config": (["--config", folder / "config.yaml"], []),
        "weights": (["--data", root], ["MODEL.WEIGHTS", folder / "model_best.pth"]),
    }
    found = []
    for name, (before, behind) in ways.items():
        options = [*behind, "OUTPUT_DIR", tmp_path / name, "TEST.REPORT", "False"]
        status, output = run(tmp_path, "train_net.py", *before, "--eval-only", *options)
        assert status == 0 and f"Loading from {folder}/model_best.pth" in output, output
        found.append((tmp_path / name / "inference" / "coco_instances_results.json").read_text())
        look = ("visualize.py", *before, "--output", tmp_path / "pictures", "--num", 1, "--attention", 0, *behind)
        status, output = run(tmp_path, *look)
        assert status == 0 and "at a glance: overview.png, curves.png" in output, output
    assert found[0] == found[1] and "score" in found[0]


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (["train_net.py"], "--config is missing"),
        (["train_net.py", "--eval-only"], "there is no model: give --config FILE, or MODEL.WEIGHTS"),
        (["visualize.py", "--output", "pictures"], "there is no model: give --config FILE, or MODEL.WEIGHTS"),
        (["visualize.py", "--output", "pictures", "MODEL.WEIGHTS"], "there are no pictures: give --data FOLDER"),
    ],
    ids=["train", "evaluate", "look", "look_at_what"],
)
def test_a_missing_model_or_dataset_is_told(trained, tmp_path, command, missing):
    status, output = run(tmp_path, *command, *([trained] if command[-1] == "MODEL.WEIGHTS" else []))
    assert status == 1 and f"error: {missing}" in output and "Traceback" not in output


def test_a_folder_that_holds_a_training_is_left_alone_and_continued_when_asked(finetuned, root, trained, tmp_path):
    folder, _ = finetuned
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    status, output = run(tmp_path, "finetune.py", "--data", root, "--weights", trained, "--output-dir", folder)
    assert status == 1 and f"error: {folder} holds a training; go on with it (finetune.py --continue" in output
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    status, output = run(tmp_path, "train_net.py", "--config", folder / "config.yaml")
    assert status == 1 and f"error: {folder} holds a training" in output
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    status, output = run(tmp_path, "finetune.py", "--continue", "--lr", 1e-3, "--masks", "--output-dir", folder)
    assert status == 1 and "leave out --lr, --masks" in output
    status, output = run(tmp_path, "finetune.py", "--continue", "--epochs", 4, "--output-dir", folder)
    assert status == 0, output
    assert "4 of 6 pictures, 2 at a time, so 12 iterations" in output and ", lowered at 10" in output
    assert "Starting training from iteration 6" in output
    assert torch.load(folder / "model_final.pth", weights_only=True)["iteration"] == 11


def test_weights_without_a_class_head_as_people_prepare_them_for_main_py(root, trained, tmp_path):
    content = torch.load(trained, weights_only=True)
    headless = {name.removeprefix("detr."): w for name, w in content["model"].items() if "class_embed" not in name}
    torch.save(
        {"model": headless, "args": argparse.Namespace(nheads=8, dilation=False)}, tmp_path / "no-class-head.pth"
    )
    cfg = finetune_config(root, tmp_path / "no-class-head.pth", output_dir=tmp_path / "run")
    assert (cfg.MODEL.DETR.ENC_LAYERS, cfg.MODEL.DETR.NUM_OBJECT_QUERIES, cfg.MODEL.DETR.NUM_CLASSES) == (1, 15, -1)


def test_in_python(root, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    for folder in ("first", "second"):
        options = {"epochs": 0.5, "batch_size": 3, "output_dir": tmp_path / folder}
        assert "AP50" in finetune(root, trained, **options, opts=[*TINY, "TEST.REPORT", "False"])["bbox"]
    first, second = ((tmp_path / folder / "log.txt").read_text() for folder in ("first", "second"))
    assert first.count("Classes of the data") == second.count("Classes of the data") == 1, "each has a log of its own"


def test_masks_begin_with_the_published_model_that_has_some(root, monkeypatch):
    asked = []
    monkeypatch.setattr("d2_detr.workflows.finetune.config_of", lambda weights, **_: asked.append(weights) or 1 / 0)
    for masks in (False, True):
        with pytest.raises(ZeroDivisionError):
            finetune_config(root, masks=masks)
    assert asked == ["detr://r50", "detr://r50-panoptic"]


def test_the_options_of_main_py_mean_what_they_mean_there(root, trained, tmp_path):
    folder = tmp_path / "run"
    native = (
        f"--dataset_file custom --coco_path {root} --num_classes 5 --lr 0.0002 --batch_size 3 --output_dir {folder}"
    )
    more = f"--resume {trained} --epochs 1 --weight_decay 0.002 --device cpu --num_workers 0 --eos_coef 0.2 --seed 7 "
    more += "--lr_backbone 0.00004 --lr_drop 9"
    status, output = run(tmp_path, "finetune.py", *native.split(), *more.split(), *TINY, "TEST.REPORT", "False")
    assert status == 0, output
    assert f"--resume {trained}: starting from these weights; --continue would go on with a training" in output
    cfg = config_of(folder)
    solver = cfg["SOLVER"]
    assert (solver["BASE_LR"], solver["IMS_PER_BATCH"], solver["WEIGHT_DECAY"], solver["MAX_ITER"]) == (
        2e-4,
        3,
        0.002,
        2,
    )
    assert solver["BACKBONE_MULTIPLIER"] == pytest.approx(0.2) and solver["STEPS"] == []
    assert (cfg["MODEL"]["DETR"]["NUM_CLASSES"], cfg["MODEL"]["DETR"]["NO_OBJECT_WEIGHT"], cfg["SEED"]) == (5, 0.2, 7)
    assert json.loads((folder / "metrics.json").read_text().splitlines()[-1])["iteration"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epoch", "3"], "there is no option --epoch; is --epochs meant?"),
        (["--batchsize=3"], "there is no option --batchsize; is --batch_size meant?"),
        (["--xyz"], "there is no option --xyz (finetune.py --help"),
        (["--num_queries", "10"], "--num_queries: the model is that of --weights, so leave it out"),
        (["--dice_loss_coef", "2"], "--dice_loss_coef: the losses of masks have weights of 1"),
        (["--eval"], "--eval: python tools/train_net.py --eval-only"),
        (["--epochs", "many"], "argument --epochs: invalid float value: 'many'"),
    ],
    ids=["abbreviated", "misspelt", "unknown", "of_the_model", "weight", "other_tool", "no_number"],
)
def test_an_option_that_does_not_exist_is_answered_in_a_line(root, tmp_path, options, message):
    status, output = run(tmp_path, "finetune.py", "--data", root, *options)
    last = output.strip().splitlines()[-1]
    assert status == 2 and last.startswith("error: ") and message in last and "usage" not in output


def test_smaller_pictures_and_an_early_end_have_plain_options(root, trained):
    cfg, smaller = (finetune_config(root, trained, image_size=size, patience=3) for size in (0, 32))
    sizes = [(c.MIN_SIZE_TRAIN, c.MAX_SIZE_TRAIN, c.MIN_SIZE_TEST, c.MAX_SIZE_TEST) for c in (cfg.INPUT, smaller.INPUT)]
    assert sizes == [((64,), 192, 64, 192), ((32,), 96, 32, 96)] and cfg.SOLVER.PATIENCE == 3


@pytest.mark.parametrize(("of_test", "expected"), [((480, 600), (400, 500)), ((0, 1333), (400, 666))])
def test_the_size_is_that_of_training_whatever_the_weights_were_tested_with(root, monkeypatch, of_test, expected):
    def published(weights, **_):
        sizes = [*zip(("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"), of_test, strict=True)]
        return load_config("Base-DETR.yaml", [part for pair in sizes for part in pair]), None

    monkeypatch.setattr("d2_detr.workflows.finetune.config_of", published)
    sizes = finetune_config(root, image_size=400).INPUT
    assert (min(sizes.MIN_SIZE_TRAIN), max(sizes.MIN_SIZE_TRAIN), sizes.MAX_SIZE_TRAIN) == (240, 400, 666)
    assert expected == (sizes.MIN_SIZE_TEST, sizes.MAX_SIZE_TEST)


def test_masks_are_learned_where_they_are_asked_for(root, trained, tmp_path):
    folder = tmp_path / "run"
    options = (
        "--data",
        root,
        "--weights",
        trained,
        "--epochs",
        1,
        "--batch-size",
        6,
        "--masks",
        "--output-dir",
        folder,
    )
    status, output = run(tmp_path, "finetune.py", *options, *TINY)
    assert status == 0, output
    assert "mask AP50" in output and "AP of masks" in (folder / "report.html").read_text()


MISTAKES = {
    "no_data": ([], "--data is missing"),
    "both": (["--data", "x", "--weights", "a", "--resume", "b"], "give one of them"),
    "other_layout": (["--data", "DATA", "--dataset_file", "coco"], "has the layout `custom`, not `coco`"),
    "no_epochs": (
        ["--data", "DATA", "--weights", "WEIGHTS", "--epochs", "0"],
        "epochs 0.0: expected a positive number",
    ),
    "no_weights": (["--data", "DATA", "--weights", "no.pth"], "no.pth: no such checkpoint"),
    "nothing_to_continue": (["--continue"], "so there is no training to go on with"),
    "backbone": (["--data", "DATA", "--weights", "BACKBONE"], "not a whole DETR"),
    "output": (["--data", "DATA", "--weights", "WEIGHTS", "--output-dir", "FILE"], "file: a file, expected a folder"),
    "rate": (["--data", "DATA", "--weights", "WEIGHTS", "--lr", "-1"], "lr -1.0: expected 0 or more"),
    "size": (["--data", "DATA", "--weights", "WEIGHTS", "--image-size", "10"], "expected 32 pixels or more"),
    "key": (
        ["--data", "DATA", "--weights", "WEIGHTS", "SOLVER.BASE_LRR", "1"],
        "SOLVER.BASE_LRR",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_writes_nothing(root, trained, tmp_path, mistake):
    options, message = MISTAKES[mistake]
    backbone = tmp_path / "resnet18.pth"
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)}, backbone)
    (tmp_path / "file").touch()
    values = {"DATA": root, "WEIGHTS": trained, "BACKBONE": backbone, "FILE": tmp_path / "file"}
    status, output = run(
        tmp_path,
        "finetune.py",
        *([] if "--output-dir" in options else ["--output-dir", tmp_path / "run"]),
        *(values.get(option, option) for option in options),
    )
    assert status == 1 and message in output and "Traceback" not in output
    assert not (tmp_path / "run").exists()


def test_the_rate_follows_the_batch_beyond_those_that_it_was_published_for():
    assert [learning_rate(batch) for batch in (2, 16, 64)] == [1e-4] * 3
    assert learning_rate(1) == pytest.approx(7.07e-5, rel=1e-3) and learning_rate(256) == pytest.approx(2e-4)


@pytest.mark.parametrize(
    ("how", "norm"),
    [
        ({"batch_size": 16}, "BN"),
        ({"batch_size": 2, "num_processes": 8}, "FrozenBN"),
        ({"opts": ["MODEL.RESNETS.NORM", "BN"]}, "BN"),
    ],
    ids=["large", "many_small", "asked_for"],
)
def test_batch_norms_are_trained_where_a_process_has_pictures_enough_or_when_asked_for(
    root, trained, tmp_path, how, norm
):
    cfg = finetune_config(root, trained, output_dir=tmp_path, **how)
    assert norm == cfg.MODEL.RESNETS.NORM
    assert how.get("batch_size", 2) * how.get("num_processes", 1) == cfg.SOLVER.IMS_PER_BATCH


def test_in_python_the_config_is_checked_in_the_same_way(root, trained):
    with pytest.raises(InputError, match="batch_size 0"):
        finetune_config(root, trained, batch_size=0)
