"""The workflows of a person at the command line, each tool as a process of its own."""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))
CONFIG = ("--config", "detr_compact_balloon.yaml")


def start(datasets, tool, *args):
    environment = os.environ | {"DETECTRON2_DATASETS": str(datasets), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, args)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run(datasets, tool, *args):
    process = start(datasets, tool, *args)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


@pytest.fixture(scope="module")
def datasets(tmp_path_factory, drawn_balloons):
    """A folder for datasets, into which the tool has prepared `balloon` from an unpacked copy."""
    folder = tmp_path_factory.mktemp("datasets")
    status, output = run(folder, "prepare_balloon.py", "--source", drawn_balloons)
    assert status == 0, output
    assert re.search(r"balloon_train: 8 pictures, \d+ balloons", output) and "balloon_val: 4 pictures" in output
    return folder


def options(folder, **more):
    opts = (
        f"OUTPUT_DIR {folder} MODEL.DEVICE cpu MODEL.DETR.HIDDEN_DIM 32 MODEL.DETR.NHEADS 4 MODEL.DETR.ENC_LAYERS 1 "
        "MODEL.DETR.DEC_LAYERS 2 INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 SOLVER.IMS_PER_BATCH 2 "
        "SOLVER.STEPS () DATALOADER.NUM_WORKERS 0"
    ).split()
    return [*opts, *(part for key, value in more.items() for part in (key.replace("__", "."), str(value)))]


@pytest.fixture(scope="module")
def trained(datasets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    status, output = run(datasets, "train_net.py", *CONFIG, *options(folder, SOLVER__MAX_ITER=3))
    assert status == 0, output
    return folder


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != "demo.py"])
def test_every_tool_explains_itself(tmp_path, tool):
    status, output = run(tmp_path, tool, "--help")
    assert status == 0 and "usage:" in output


def test_eval_only_prints_the_coco_table(datasets, trained, tmp_path):
    weights = options(tmp_path, MODEL__WEIGHTS=trained / "model_final.pth")
    status, output = run(datasets, "train_net.py", *CONFIG, "--eval-only", *weights)
    assert status == 0, output
    assert "Average Precision  (AP) @[ IoU=0.50:0.95" in output
    assert re.search(r"\| *AP *\| *AP50 *\| *AP75 *\|", output)
    assert "copypaste: AP,AP50,AP75,APs,APm,APl" in output


def test_the_written_config_repeats_the_run_without_counting_again(trained):
    text = (trained / "config.yaml").read_text()
    assert "NUM_CLASSES: 1" in text and "MAX_ITER: 3" in text


def test_a_run_that_was_killed_goes_on_behind_its_last_checkpoint(datasets, tmp_path):
    endless = options(tmp_path, SOLVER__MAX_ITER=100000, SOLVER__CHECKPOINT_PERIOD=4)
    process = start(datasets, "train_net.py", *CONFIG, *endless)
    deadline = time.monotonic() + 90
    while not (tmp_path / "last_checkpoint").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    name = (tmp_path / "last_checkpoint").read_text()
    iterations = int(name.removeprefix("model_").removesuffix(".pth")) + 1
    short = options(tmp_path, SOLVER__MAX_ITER=iterations + 2)
    status, output = run(datasets, "train_net.py", *CONFIG, "--resume", *short)
    assert status == 0, output
    assert f"Starting training from iteration {iterations}" in output
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert saved["iteration"] == iterations + 1
    steps = {int(state["step"]) for state in saved["trainer"]["_trainer"]["optimizer"]["state"].values()}
    assert steps == {iterations + 2}, "the optimizer has counted every iteration once"


def test_visualize_writes_a_picture_for_each_of_the_test_set_and_the_curves(datasets, trained, tmp_path):
    weights = options(trained, MODEL__WEIGHTS=trained / "model_final.pth")
    status, output = run(
        datasets, "visualize.py", *CONFIG, "--output", tmp_path, "--num", 3, "--threshold", 0.1, *weights
    )
    assert status == 0, output
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 5 and {"overview.png", "curves.png"} <= names
    for name in names:
        with Image.open(tmp_path / name) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50, f"{name} is not blank"


def test_a_native_checkpoint_is_converted_and_loads(datasets, trained, tmp_path):
    trained_here = torch.load(trained / "model_final.pth", weights_only=True)["model"]
    native = {name.removeprefix("detr."): tensor for name, tensor in trained_here.items()}
    torch.save({"model": native, "args": argparse.Namespace(lr=1e-4)}, tmp_path / "native.pth")
    converted = tmp_path / "converted.pth"
    status, output = run(
        datasets, "converter.py", "--source_model", tmp_path / "native.pth", "--output_model", converted
    )
    assert status == 0, output
    result = torch.load(converted, weights_only=True)["model"]
    assert result.keys() == trained_here.keys()
    assert all(torch.equal(result[name], tensor) for name, tensor in trained_here.items())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((*CONFIG, "MODEL.DETR.NUM_CLASES", "3"), "NUM_CLASES"),
        (("--config", "no_such.yaml"), "no_such.yaml"),
        ((*CONFIG, "MODEL.DETR.NUM_CLASSES", "-3"), "NUM_CLASSES -3"),
        ((*CONFIG, "--eval-only", "MODEL.WEIGHTS", "no_such.pth"), "no_such.pth"),
    ],
    ids=["misspelt-key", "no-config", "class-count", "no-weights"],
)
def test_a_mistake_is_one_clear_message(datasets, tmp_path, args, message):
    status, output = run(datasets, "train_net.py", *args, "OUTPUT_DIR", tmp_path)
    assert status == 1
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in output


def test_a_dataset_that_was_not_prepared_says_how_to(tmp_path):
    status, output = run(tmp_path, "train_net.py", *CONFIG, "OUTPUT_DIR", tmp_path / "output")
    assert status == 1 and "tools/prepare_balloon.py" in output and "Traceback" not in output
