"""Fine-tuning by one command, with the options of this plugin and of native DETR's `main.py`."""

import argparse
import inspect
import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from d2_detr.cli import finetune as finetune_command
from d2_detr.cli.finetune import NATIVE_KEYS
from d2_detr.config import load_config
from d2_detr.utils.errors import InputError
from d2_detr.workflows.finetune import finetune, finetune_config, learning_rate, new_output_folder
from tests.cli.processes import run, start
from tests.shapes import draw_shapes

TINY = (
    "MODEL.DEVICE cpu MODEL.DETR.AUTOCAST off INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 "
    "DATALOADER.NUM_WORKERS 0"
).split()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A dataset of three classes: six training and three validation images, which are also its test split."""
    root = draw_shapes(tmp_path_factory.mktemp("coco"))
    shutil.copy(root / "annotations/custom_val.json", root / "annotations/custom_test.json")
    shutil.copytree(root / "val2017", root / "test2017")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory, drawn_balloons):
    """A small balloon model; its class count and sizes differ from those of the published models."""
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
    """Output folder and console output of `finetune.py`: two epochs of six images, two per iteration."""
    folder = tmp_path_factory.mktemp("finetuned") / "run"
    status, output = run(
        folder.parent, "finetune.py", "--data", root, "--weights", trained, "--epochs", 2, "--output-dir", folder, *TINY
    )
    assert status == 0, output
    return folder, output


def read_config(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())


def test_one_command_trains_evaluates_and_reports(finetuned):
    folder, output = finetuned
    assert "has the layout `custom`" in output and re.search(r"20 +2 +triangle", output)
    assert (
        "Training for 2 epochs of 6 images, 2 per iteration: 6 iterations, learning rate 0.0001, dropping at 5"
        in output
    )
    evaluations = re.findall(
        r"Evaluation at iteration (\d), epoch \d: AP [\d.]+  AP50 .*total_loss .*class_error", output
    )
    assert evaluations == ["3", "6"], "one per epoch"
    assert re.search(r"class_error [\d.]+  cardinality_error [\d.]+  \(disc [\d.]+, square [\d.]+, triangle", output)
    assert not re.search(r"copypaste|Average Precision|Instances of|d2_detr\.\w|detectron2\.\w", output)
    log = (folder / "log.txt").read_text()
    assert log.count("copypaste: Task: bbox") == 2 and "Average Precision  (AP) @[ IoU=0.50 " in log
    assert {"report.html", "model_best.pth", "model_final.pth", "metrics.json"} <= {p.name for p in folder.iterdir()}
    assert "The predictions are not useful" in output and "predict.py" not in output, "after six iterations"
    assert f"--config {folder}/config.yaml --output {folder}_again" in (folder / "report.html").read_text()
    names = torch.load(folder / "model_final.pth", weights_only=True)["label_map"]
    assert names == {"ids": [3, 7, 20], "names": ["disc", "square", "triangle"]}


def test_first_line_is_printed_before_torch_is_imported(tmp_path):
    process = start(tmp_path, "finetune.py", "--data", tmp_path)
    assert re.fullmatch(r"d2_detr \S+: loading\n", process.stdout.readline())
    assert "error: " in process.communicate()[0]


def test_config_comes_from_the_weights_and_the_dataset(finetuned, trained):
    cfg = read_config(finetuned[0])
    assert cfg["MODEL"]["DETR"]["HIDDEN_DIM"] == 128 and cfg["MODEL"]["RESNETS"]["DEPTH"] == 18
    assert cfg["INPUT"]["MAX_SIZE_TRAIN"] == 192 and cfg["MODEL"]["DETR"]["NUM_CLASSES"] == 3
    assert cfg["MODEL"]["WEIGHTS"] == str(trained)
    assert cfg["MODEL"]["RESNETS"]["NORM"] == "FrozenBN", "although the weights were trained with BN"
    assert cfg["SOLVER"]["BASE_LR"] == learning_rate(2)
    assert (cfg["SOLVER"]["STEPS"], cfg["SOLVER"]["MAX_EPOCHS"], cfg["TEST"]["EVAL_EPOCHS"]) == ([0.8], 2, 1)


def test_written_config_reproduces_the_run(finetuned, tmp_path):
    config = ("--config", finetuned[0] / "config.yaml")
    status, output = run(tmp_path, "train_net.py", *config, "OUTPUT_DIR", tmp_path / "again", "TEST.REPORT", "False")
    assert status == 0, output
    first, again = (read_config(folder) for folder in (finetuned[0], tmp_path / "again"))
    first["OUTPUT_DIR"], first["TEST"]["REPORT"] = again["OUTPUT_DIR"], False
    assert first == again and first["SEED"] >= 0
    losses = [
        [{name: value for name, value in json.loads(line).items() if "loss" in name} for line in metrics.open()]
        for metrics in (finetuned[0] / "metrics.json", tmp_path / "again" / "metrics.json")
    ]
    assert losses[0] == losses[1] and "validation/loss_giou" in losses[0][0], "to the last digit"


def test_evaluate_and_visualize_need_only_config_or_weights(finetuned, root, tmp_path):
    folder, _ = finetuned
    cases = {
        "config": (["--config", folder / "config.yaml"], []),
        "weights": (["--data", root], ["MODEL.WEIGHTS", folder / "model_best.pth"]),
    }
    results = []
    for name, (before, after) in cases.items():
        options = [*after, "OUTPUT_DIR", tmp_path / name, "TEST.REPORT", "False"]
        status, output = run(tmp_path, "train_net.py", *before, "--eval-only", *options)
        assert status == 0 and f"Evaluating {folder}/model_best.pth on custom_val" in output, output
        results.append((tmp_path / name / "inference" / "coco_instances_results.json").read_text())
        visualize = ("visualize.py", *before, "--output", tmp_path / "drawings", "--num", 1, "--attention", 0, *after)
        status, output = run(tmp_path, *visualize)
        assert status == 0 and "overview.png" in output and "curves.png" in output, output
    assert results[0] == results[1] and "score" in results[0]


def test_test_split_is_evaluated_into_a_separate_folder(finetuned, tmp_path):
    folder, _ = finetuned
    before = {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", "log.txt")
    }
    status, output = run(tmp_path, "evaluate", "--config", folder / "config.yaml", "--split", "test")
    assert status == 0 and f"Evaluating {folder}/model_best.pth on custom_test" in output, output
    [written] = (folder / "inference").glob("*_custom_test")
    assert {"coco_instances_results.json", "report.html"} <= {path.name for path in written.iterdir()}
    assert all(path.read_bytes() == content for path, content in before.items()), "threshold and reports are unchanged"


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (["train_net.py"], "--config is missing"),
        (["train_net.py", "--eval-only"], "no model is given: add --weights FILE, or --config FILE of a training"),
        (
            ["visualize.py", "--output", "drawings"],
            "no model is given: add --weights FILE, or --config FILE of a training",
        ),
        (["visualize.py", "--output", "drawings", "MODEL.WEIGHTS"], "no dataset is given: add --data FOLDER"),
    ],
    ids=["train", "evaluate", "visualize", "visualize_without_data"],
)
def test_missing_model_or_dataset_is_an_error(trained, tmp_path, command, missing):
    status, output = run(tmp_path, *command, *([trained] if command[-1] == "MODEL.WEIGHTS" else []))
    assert status == 1 and f"error: {missing}" in output and "Traceback" not in output


def test_training_is_continued_only_on_request(finetuned, root, trained, tmp_path):
    folder, _ = finetuned
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    status, output = run(tmp_path, "finetune.py", "--data", root, "--weights", trained, "--output-dir", folder)
    assert status == 1 and f"finetune.py --continue --output {folder})" in output
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    status, output = run(tmp_path, "train_net.py", "--config", folder / "config.yaml")
    assert status == 1 and f"error: {folder} contains a training" in output
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    status, output = run(tmp_path, "finetune.py", "--continue", "--lr", 1e-3, "--num_classes", 3, "--output", folder)
    assert status == 1 and "leave out --lr, --num_classes. For" in output
    status, output = run(tmp_path, "finetune.py", "--continue", "--epochs", 4, "--output-dir", folder)
    assert status == 0, output
    assert "for 4 epochs of 6 images, 2 per iteration: 12 iterations" in output and ", dropping at 10" in output
    assert "Starting training from iteration 6" in output
    assert torch.load(folder / "model_final.pth", weights_only=True)["iteration"] == 11


def test_weights_without_class_head_are_accepted(root, trained, tmp_path):
    content = torch.load(trained, weights_only=True)
    headless = {name.removeprefix("detr."): w for name, w in content["model"].items() if "class_embed" not in name}
    torch.save(
        {"model": headless, "args": argparse.Namespace(nheads=8, dilation=False)}, tmp_path / "no-class-head.pth"
    )
    cfg = finetune_config(root, tmp_path / "no-class-head.pth", output_dir=tmp_path / "run")
    assert (cfg.MODEL.DETR.ENC_LAYERS, cfg.MODEL.DETR.NUM_OBJECT_QUERIES, cfg.MODEL.DETR.NUM_CLASSES) == (1, 15, -1)


def test_finetune_works_from_python(root, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    for folder in ("first", "second"):
        options = {"epochs": 0.5, "batch_size": 3, "output_dir": tmp_path / folder}
        assert "AP50" in finetune(root, trained, **options, opts=[*TINY, "TEST.REPORT", "False"])["bbox"]
    first, second = ((tmp_path / folder / "log.txt").read_text() for folder in ("first", "second"))
    assert first.count("Classes of the data") == second.count("Classes of the data") == 1, "one log per run"


def test_masks_start_from_published_weights_with_a_mask_head(root, monkeypatch):
    requested = []
    monkeypatch.setattr(
        "d2_detr.workflows.finetune.read_checkpoint", lambda weights: requested.append(weights) or 1 / 0
    )
    for masks in (False, True):
        with pytest.raises(ZeroDivisionError):
            finetune_config(root, masks=masks)
    assert requested == ["detr://r50", "detr://r50-panoptic"]


def test_options_of_main_py_set_the_same_values(root, trained, tmp_path):
    folder = tmp_path / "run"
    native = (
        f"--dataset_file custom --coco_path {root} --num_classes 5 --lr 0.0002 --batch_size 3 --output_dir {folder}"
    )
    more = f"--resume {trained} --epochs 1 --weight_decay 0.002 --device cpu --num_workers 0 --eos_coef 0.2 --seed 7 "
    more += "--lr_backbone 0.00004 --lr_drop 9 --bbox_loss_coef 4 --dropout 0"
    status, output = run(tmp_path, "finetune.py", *native.split(), *more.split(), *TINY, "TEST.REPORT", "False")
    assert status == 0, output
    assert f"--resume {trained}: starting from these weights (--continue would resume a training)" in output
    cfg = read_config(folder)
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


NATIVE = {
    "--eos_coef": "1", "--weight_decay": "0", "--clip_max_norm": "0", "--num_workers": "0", "--seed": "0",
    "--dropout": "0", "--giou_loss_coef": "0", "--bbox_loss_coef": "5", "--num_classes": "5",
}  # fmt: skip


@pytest.mark.parametrize("option", NATIVE)
@pytest.mark.parametrize("override", [False, True], ids=["alone", "overridden"])
def test_native_options_may_be_whole_numbers_and_zero(root, trained, monkeypatch, option, override):
    started = []
    monkeypatch.setattr("d2_detr.cli.finetune.launch", lambda run, **_: started.append(run.args[0]))
    opts = [NATIVE_KEYS[option], NATIVE[option]] if override else []
    given = "0.5" if override and option not in ("--num_workers", "--seed", "--num_classes") else NATIVE[option]
    argv = ["finetune.py", "--data", root, "--weights", trained, option, given, *opts]
    monkeypatch.setattr("sys.argv", [*map(str, argv)])
    finetune_command.main()
    value = started[0]
    for part in NATIVE_KEYS[option].split("."):
        value = value[part]
    assert value == int(NATIVE[option])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epoch", "3"], "unknown option --epoch; did you mean --epochs?"),
        (["--batchsize=3"], "unknown option --batchsize; did you mean --batch_size?"),
        (["--xyz"], "unknown option --xyz (finetune.py --help"),
        (["--num_queries", "10"], "--num_queries: the model is that of --weights; leave this out"),
        (["--dice_loss_coef", "2"], "--dice_loss_coef: mask losses have weight 1"),
        (["--eval"], "tools/evaluate.py --data FOLDER --weights FILE"),
        (["--epochs", "many"], "argument --epochs: invalid float value: 'many'"),
    ],
    ids=["abbreviated", "misspelt", "unknown", "model", "weight", "other_tool", "not_a_number"],
)
def test_invalid_option_is_an_error_in_one_line(root, tmp_path, options, message):
    status, output = run(tmp_path, "finetune.py", "--data", root, *options)
    last = output.strip().splitlines()[-1]
    assert status == 2 and last.startswith("error: ") and message in last and "usage" not in output


def test_image_size_and_patience_set_the_config(root, trained):
    cfg, smaller = (finetune_config(root, trained, image_size=size, patience=3) for size in (None, 32))
    sizes = [(c.MIN_SIZE_TRAIN, c.MAX_SIZE_TRAIN, c.MIN_SIZE_TEST, c.MAX_SIZE_TEST) for c in (cfg.INPUT, smaller.INPUT)]
    assert sizes == [((64,), 192, 64, 192), ((32,), 96, 32, 96)] and cfg.SOLVER.PATIENCE == 3


@pytest.mark.parametrize(("test_sizes", "expected"), [((480, 600), (400, 500)), ((0, 1333), (400, 666))])
def test_training_size_ignores_the_test_size_of_the_weights(root, monkeypatch, test_sizes, expected):
    def published(checkpoint, **_):
        sizes = [*zip(("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"), test_sizes, strict=True)]
        return load_config("Base-DETR.yaml", [part for pair in sizes for part in pair]), None

    monkeypatch.setattr("d2_detr.workflows.finetune.read_checkpoint", lambda weights: None)
    monkeypatch.setattr("d2_detr.workflows.finetune.model_config", published)
    sizes = finetune_config(root, image_size=400).INPUT
    assert (min(sizes.MIN_SIZE_TRAIN), max(sizes.MIN_SIZE_TRAIN), sizes.MAX_SIZE_TRAIN) == (240, 400, 666)
    assert expected == (sizes.MIN_SIZE_TEST, sizes.MAX_SIZE_TEST)


def test_masks_option_trains_a_mask_head(root, trained, tmp_path):
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
    "nothing_to_continue": (["--continue"], "so there is no training to continue"),
    "backbone": (["--data", "DATA", "--weights", "BACKBONE"], "not a complete DETR"),
    "output": (["--data", "DATA", "--weights", "WEIGHTS", "--output-dir", "FILE"], "file: a file, expected a folder"),
    "rate": (["--data", "DATA", "--weights", "WEIGHTS", "--lr", "-1"], "lr -1.0: expected a positive number"),
    "size": (["--data", "DATA", "--weights", "WEIGHTS", "--image-size", "10"], "expected 32 pixels or more"),
    "key": (
        ["--data", "DATA", "--weights", "WEIGHTS", "SOLVER.BASE_LRR", "1"],
        "SOLVER.BASE_LRR",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_message_and_writes_nothing(root, trained, tmp_path, mistake):
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


def test_learning_rate_scales_beyond_published_batch_sizes():
    assert [learning_rate(batch) for batch in (2, 16, 64)] == [1e-4] * 3
    assert learning_rate(1) == pytest.approx(7.07e-5, rel=1e-3) and learning_rate(256) == pytest.approx(2e-4)


@pytest.mark.parametrize(
    ("how", "norm"),
    [
        ({"batch_size": 16}, "BN"),
        ({"batch_size": 2, "num_processes": 8}, "FrozenBN"),
        ({"opts": ["MODEL.RESNETS.NORM", "BN"]}, "BN"),
    ],
    ids=["large", "many_small", "requested"],
)
def test_batch_norm_is_trained_for_large_batches_or_on_request(root, trained, tmp_path, how, norm):
    cfg = finetune_config(root, trained, output_dir=tmp_path, **how)
    assert norm == cfg.MODEL.RESNETS.NORM
    assert how.get("batch_size", 2) * how.get("num_processes", 1) == cfg.SOLVER.IMS_PER_BATCH


def test_python_arguments_are_validated(root, trained):
    with pytest.raises(InputError, match="batch_size 0"):
        finetune_config(root, trained, batch_size=0)
    for options, message in (
        ({"epochs": "3"}, "epochs '3': expected a number"),
        ({"epochs": math.nan}, "epochs nan: expected a number"),
        ({"batch_size": 2.5}, "batch_size 2.5: expected a whole number"),
        ({"lr": 0}, "lr 0: expected a positive number"),
    ):
        with pytest.raises(InputError, match=message):
            finetune(root, trained, **options)


def test_weights_in_opts_give_the_sizes_of_the_model(root, trained):
    cfg = finetune_config(root, opts=["MODEL.WEIGHTS", str(trained)])
    assert (str(trained), 128) == (cfg.MODEL.WEIGHTS, cfg.MODEL.DETR.HIDDEN_DIM)


def test_finetune_signature_names_its_options():
    options = inspect.signature(finetune).parameters
    assert options.keys() >= {"data", "weights", "epochs", "output_dir", "image_size"}
    assert all(option.kind is not option.VAR_KEYWORD for option in options.values())
    with pytest.raises(TypeError, match=r"finetune\(\) got an unexpected keyword argument 'imgsz'"):
        finetune("data", imgsz=640)


def test_default_output_folder_is_named_after_the_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cats", "cats-2", "cats-3"):
        folder = new_output_folder("data/cats")
        assert folder == Path("outputs") / name
        folder.mkdir(parents=True)
    assert new_output_folder(tmp_path / "dogs") == Path("outputs/dogs")
