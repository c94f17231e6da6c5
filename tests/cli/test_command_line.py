"""Workflows at the command line, each tool in a separate process."""

import argparse
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from tests.cli.processes import ROOT, run, start
from tests.shapes import draw_shapes

TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))
CONFIG = ("--config", "detr_compact_balloon.yaml")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory, drawn_balloons):
    """A folder of datasets in which the tool has prepared `balloon` from an unpacked copy."""
    folder = tmp_path_factory.mktemp("datasets")
    status, output = run(folder, "prepare_balloon.py", "--source", drawn_balloons)
    assert status == 0, output
    assert re.search(r"balloon_train: 8 images, \d+ balloons", output) and "balloon_val: 4 images" in output
    return folder


def options(folder, **more):
    opts = (
        f"OUTPUT_DIR {folder} MODEL.DEVICE cpu MODEL.DETR.HIDDEN_DIM 32 MODEL.DETR.NHEADS 4 MODEL.DETR.ENC_LAYERS 1 "
        "MODEL.DETR.DEC_LAYERS 2 INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 SOLVER.IMS_PER_BATCH 2 "
        "SOLVER.STEPS () DATALOADER.NUM_WORKERS 0 TEST.REPORT False"
    ).split()
    return [*opts, *(part for key, value in more.items() for part in (key.replace("__", "."), str(value)))]


@pytest.fixture(scope="module")
def trained(datasets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    status, output = run(datasets, "train_net.py", *CONFIG, *options(folder, SOLVER__MAX_ITER=3))
    assert status == 0, output
    return folder


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != "demo.py"])
def test_every_tool_prints_its_usage(tmp_path, tool):
    status, output = run(tmp_path, tool, "--help")
    assert status == 0 and "usage:" in output


def test_eval_only_prints_the_coco_table(datasets, trained, tmp_path):
    weights = options(tmp_path, MODEL__WEIGHTS=trained / "model_final.pth")
    status, output = run(datasets, "train_net.py", *CONFIG, "--eval-only", *weights)
    assert status == 0, output
    assert "Average Precision  (AP) @[ IoU=0.50:0.95" in output
    assert re.search(r"\| *AP *\| *AP50 *\| *AP75 *\|", output)
    assert "copypaste" not in output and "copypaste: AP,AP50,AP75,APs,APm,APl" in (tmp_path / "log.txt").read_text()


def test_evaluation_keeps_the_training_config_and_report(datasets, tmp_path):
    status, output = run(datasets, "train_net.py", *CONFIG, *options(tmp_path, SOLVER__MAX_ITER=1, TEST__REPORT=True))
    assert status == 0, output
    kept = {name: (tmp_path / name).read_text() for name in ("config.yaml", "report.html")}
    weights = options(tmp_path, MODEL__WEIGHTS=tmp_path / "model_final.pth", TEST__REPORT=True)
    status, output = run(datasets, "train_net.py", *CONFIG, "--eval-only", *weights)
    assert status == 0, output
    assert kept == {name: (tmp_path / name).read_text() for name in kept}
    assert "Images</h2>" in (tmp_path / "inference" / "report.html").read_text()


def test_written_config_has_class_count_and_iterations(trained):
    text = (trained / "config.yaml").read_text()
    assert "NUM_CLASSES: 1" in text and "MAX_ITER: 3" in text


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_interrupted_run_continues_after_its_last_checkpoint(datasets, tmp_path, end):
    endless = options(tmp_path, SOLVER__MAX_ITER=100000, SOLVER__CHECKPOINT_PERIOD=4)
    (tmp_path / "report.html").write_text("of an earlier training")
    process = start(datasets, "train_net.py", *CONFIG, *endless)
    deadline = time.monotonic() + 90
    while not (tmp_path / "last_checkpoint").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(end)
    output, _ = process.communicate()
    if end is signal.SIGINT:
        assert process.returncode == 130 and "Traceback" not in output
        assert f"{ROOT}/tools/finetune.py --continue --output {tmp_path}\n" in output
        assert "report.html is from before this part of the training" in output
    name = (tmp_path / "last_checkpoint").read_text()
    assert (name == "model_last.pth") == (end is signal.SIGINT), "Ctrl-C saves the current state"
    iterations = torch.load(tmp_path / name, weights_only=True)["iteration"] + 1
    short = options(tmp_path, SOLVER__MAX_ITER=iterations + 2)
    status, output = run(datasets, "train_net.py", *CONFIG, "--resume", *short)
    assert status == 0, output
    assert f"Starting training from iteration {iterations}" in output
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert saved["iteration"] == iterations + 1
    steps = {int(state["step"]) for state in saved["trainer"]["_trainer"]["optimizer"]["state"].values()}
    assert steps == {iterations + 2}, "one optimizer step per iteration"


def test_visualize_compares_two_models_side_by_side(trained, tmp_path):
    root = draw_shapes(tmp_path / "shapes")
    weights = trained / "model_final.pth"
    options = (
        "--data",
        root,
        "--output",
        tmp_path / "out",
        "--num",
        2,
        "--threshold",
        0,
        "--compare",
        weights,
        weights,
    )
    status, output = run(tmp_path, "visualize.py", *options, "--show", "MODEL.DEVICE", "cpu")
    assert status == 1 and "no window can be opened" in output, "files are written before the window opens"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "00001.png",
        "00002.png",
        "overview.png",
        "curves.png",
    }
    with Image.open(tmp_path / "out" / "overview.png") as image:
        assert image.width == 6 * 384, "two comparisons of three views"


def test_visualize_draws_test_images_attention_and_curves(datasets, trained, tmp_path):
    weights = options(trained, MODEL__WEIGHTS=trained / "model_final.pth")
    visualize = ("visualize.py", *CONFIG, "--output", tmp_path, "--num", 3, "--threshold", 0.1)
    status, output = run(datasets, *visualize, "--point", 0.5, 60, *weights)
    assert status == 1 and "point 0.5 60.0: expected x and y in" in output and not list(tmp_path.iterdir())
    status, output = run(datasets, *visualize, "--point", 0.5, 0.6, "--point", 1, 0, *weights)
    assert status == 0, output
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 7 and {"overview.png", "curves.png"} <= names
    assert len([name for name in names if name.endswith("_attention.png")]) == 2
    for name in names:
        with Image.open(tmp_path / name) as image:
            assert len(image.convert("RGB").getcolors(1 << 24)) > 50, f"{name} is not blank"


# ---- checkpoints of other projects


def copypaste_line(log):
    """Return the last line of AP, AP50, ... that Detectron2 logs for copying."""
    return re.findall(r"copypaste: ([\d.,nan-]+)$", log, re.MULTILINE)[-1]


@pytest.fixture(scope="module")
def native(trained):
    """The trained model in native DETR's layout, in which class id 1 needs a head of three rows."""
    ours = torch.load(trained / "model_final.pth", weights_only=True)["model"]
    state_dict = {name.removeprefix("detr."): tensor for name, tensor in ours.items()}
    for name in ("class_embed.weight", "class_embed.bias"):
        state_dict[name] = torch.cat([torch.full_like(state_dict[name][:1], -9), state_dict[name]])
    path = trained / "native.pth"
    torch.save({"model": state_dict, "args": argparse.Namespace(nheads=4, dilation=False), "epoch": 3}, path)
    return path


def test_native_checkpoint_is_evaluated_without_conversion(datasets, trained, native, tmp_path):
    results = []
    for weights in (trained / "model_final.pth", native):
        status, output = run(
            datasets, "train_net.py", *CONFIG, "--eval-only", *options(tmp_path, MODEL__WEIGHTS=weights)
        )
        assert status == 0, output
        results.append((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert "class head: 2 of 3 rows kept" in output
    assert results[0] == results[1] and "score" in results[0], "identical detections"


@pytest.mark.parametrize(("to", "file"), [("native", "n.pth"), ("wrapper", "w.pth"), ("plugin", "p.safetensors")])
def test_converter_round_trip_is_bit_exact(datasets, trained, tmp_path, to, file):
    converted, back = tmp_path / file, tmp_path / "back.pth"
    ours = trained / "model_final.pth"
    for source, target, layout in ((ours, converted, to), (converted, back, "plugin")):
        status, output = run(
            datasets, "converter.py", "--source_model", source, "--output_model", target, "--to", layout
        )
        assert status == 0, output
    saved, result = (torch.load(path, weights_only=True) for path in (ours, back))
    assert saved["model"].keys() == result["model"].keys()
    assert all(torch.equal(result["model"][name], tensor) for name, tensor in saved["model"].items())
    assert result["label_map"] == saved["label_map"] == {"ids": [1], "names": ["balloon"]}
    sizes = yaml.safe_load(result["config"])["INPUT"]
    assert (sizes["MIN_SIZE_TEST"], sizes["MAX_SIZE_TEST"]) == (64, 192), "the image sizes of the training"


def test_ambiguous_head_needs_the_first_class_id(datasets, native, tmp_path):
    target = tmp_path / "converted.pth"
    command = ("converter.py", "--source_model", native, "--output_model", target)
    status, output = run(datasets, *command)
    assert status == 1 and "error: " in output and "--first-class-id 0 or 1" in output and not target.exists()
    status, output = run(datasets, *command, "--first-class-id", "1")
    assert status == 0, output
    assert len(torch.load(target, weights_only=True)["model"]["detr.class_embed.bias"]) == 2


def test_inspect_describes_a_checkpoint(datasets, native, tmp_path):
    status, output = run(tmp_path, "converter.py", "--source_model", native, "--inspect")
    assert status == 0
    description = dict(line.split(maxsplit=1) for line in output[output.index("format ") :].strip().splitlines())
    assert (description["format"], description["queries"], description["masks"]) == ("native DETR", "15", "no")
    assert description["backbone"] == "R18 up to layer3" and "1 encoder and 2 decoder" in description["transformer"]


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.write_text, (self.marker, "the code has run")


@pytest.mark.parametrize(
    ("damage", "tool"),
    [("hostile", "train_net"), ("hostile", "converter"), ("cut_short", "train_net"), ("another_model", "converter"),
     ("another_model", "train_net")],
)  # fmt: skip
def test_bad_checkpoint_is_an_error_without_side_effects(datasets, trained, tmp_path, damage, tool):
    path, marker, output_dir = tmp_path / "model.pth", tmp_path / "marker", tmp_path / "run"
    output_dir.mkdir()
    (output_dir / "config.yaml").write_text("of an earlier run")
    if damage == "hostile":
        torch.save({"model": Hostile(marker)}, path)
    elif damage == "cut_short":
        path.write_bytes((trained / "model_final.pth").read_bytes()[:100_000])
    else:
        torch.save({"model": {"linear.weight": torch.zeros(3)}}, path)
    args = {
        "train_net": (*CONFIG, "--eval-only", *options(output_dir, MODEL__WEIGHTS=path)),
        "converter": ("--source_model", path, "--output_model", output_dir / "config.yaml"),
    }
    status, output = run(datasets, f"{tool}.py", *args[tool])
    last = output.strip().splitlines()[-1]
    assert status == 1 and last.startswith("error: ") and "model.pth: " in last and "Traceback" not in output
    assert (output_dir / "config.yaml").read_text() == "of an earlier run" and not marker.exists()


# ---- custom datasets


@pytest.fixture(scope="module")
def custom_dataset(tmp_path_factory):
    return draw_shapes(tmp_path_factory.mktemp("own") / "coco")


def test_custom_dataset_is_trained_and_evaluated_by_one_command(custom_dataset, tmp_path):
    opts = options(tmp_path, SOLVER__MAX_ITER=2)
    status, output = run(tmp_path, "train_net.py", *CONFIG, "--data", custom_dataset, *opts)
    assert status == 0, output
    for row in (r"3 +0 +disc +\d+", r"7 +1 +square +\d+", r"20 +2 +triangle +\d+"):
        assert re.search(rf"(?m)^ *{row}", output)
    log = (tmp_path / "log.txt").read_text()
    assert re.search(r"\| *disc *\| *[\d.]+ *\| *square", log), "AP per class"
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert saved["label_map"] == {"ids": [3, 7, 20], "names": ["disc", "square", "triangle"]}
    again = ("--config", tmp_path / "config.yaml", "--eval-only", "MODEL.WEIGHTS", tmp_path / "model_final.pth")
    status, output = run(tmp_path, "train_net.py", *again)
    both = (tmp_path / "log.txt").read_text()
    assert status == 0, output
    assert both.count("copypaste: AP,") == 2 and copypaste_line(both) == copypaste_line(log), (
        "the written config names the dataset"
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_image_ends_the_training_with_its_name(custom_dataset, tmp_path, workers):
    root = shutil.copytree(custom_dataset, tmp_path / "coco")
    for path in (root / "train2017").iterdir():
        content = path.read_bytes()
        path.write_bytes(content[:60] + bytes(len(content) - 80) + content[-20:])  # header and end stay valid
    opts = options(tmp_path / "run", DATALOADER__NUM_WORKERS=workers)
    status, output = run(tmp_path, "train_net.py", *CONFIG, "--data", root, *opts)
    last = output.strip().splitlines()[-1]
    assert status == 1 and re.match(r"error: .*0000\d\.png: the image is damaged or truncated", last), output
    assert "Starting training" in output and "Traceback" not in output


# ---- errors


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((*CONFIG, "MODEL.DETR.NUM_CLASES", "3"), "NUM_CLASES"),
        (("--config", "no_such.yaml"), "no_such.yaml"),
        ((*CONFIG, "MODEL.DETR.NUM_CLASSES", "-3"), "NUM_CLASSES -3"),
        (
            ("--config", "detr_r50_custom.yaml", "--data", "no_such_folder"),
            "no_such_folder: does not exist",
        ),
    ],
    ids=["misspelt-key", "no-config", "class-count", "no-data"],
)
def test_mistake_is_one_error_message(datasets, tmp_path, args, message):
    status, output = run(datasets, "train_net.py", *args, "OUTPUT_DIR", tmp_path)
    assert status == 1
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in output


def test_unprepared_dataset_error_names_the_command(tmp_path):
    status, output = run(tmp_path, "train_net.py", *CONFIG, "OUTPUT_DIR", tmp_path / "output")
    assert status == 1 and "tools/prepare_balloon.py" in output and "Traceback" not in output
