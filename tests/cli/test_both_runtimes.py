"""The real Detectron2 and the embedded subset train, resume and evaluate with the same results.

Without an installed Detectron2 these tests are skipped; tests/reference/ holds values recorded with it.

A resume restarts the order of the images, so a resumed run is compared with another run that resumed from the same
checkpoint, not with an uninterrupted run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import detectron2

pytestmark = pytest.mark.skipif("embedded" in detectron2.__version__, reason="the real Detectron2 is not installed")

ROOT = Path(__file__).parents[2]
RUNTIMES = {  # PYTHONPATH of the runtime, and its version in the log
    "real": (str(ROOT), "0.6"),
    "embedded": (f"{ROOT / 'd2_detr/_embedded'}{os.pathsep}{ROOT}", "0.6+embedded"),
}
OPTIONS = (
    "MODEL.DEVICE cpu MODEL.DETR.AUTOCAST off MODEL.DETR.HIDDEN_DIM 32 MODEL.DETR.NHEADS 4 MODEL.DETR.DROPOUT 0.1 "
    "MODEL.DETR.DIM_FEEDFORWARD 32 MODEL.DETR.ENC_LAYERS 1 MODEL.DETR.DEC_LAYERS 2 INPUT.MIN_SIZE_TRAIN (48,64) "
    "INPUT.MIN_SIZE_TEST 64 SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 4 SOLVER.STEPS (3,) SOLVER.CHECKPOINT_PERIOD 2 "
    "DATALOADER.NUM_WORKERS 0 TEST.REPORT False SEED 3"
).split()
TIMES = {"time", "data_time", "rank_data_time", "eta_seconds"}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The order of a sum depends on the number of threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


def start(runtime, folder, *args):
    """Start tools/train_net.py under a runtime, with `folder` for its output."""
    command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--config", "detr_compact_balloon_drawn.yaml"]
    return subprocess.Popen(
        [*command, *args, *OPTIONS, "OUTPUT_DIR", str(folder)],
        env=os.environ | {"PYTHONPATH": RUNTIMES[runtime][0]},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def run_all(runs):
    """Run (runtime, folder, *arguments) in parallel, and verify that each run used its runtime."""
    processes = [start(*run) for run in runs]
    for process, (runtime, folder, *_) in zip(processes, runs, strict=True):
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        versions = re.findall(r"^detectron2 +(\S+)", (folder / "log.txt").read_text(), re.MULTILINE)
        assert versions[-1] == RUNTIMES[runtime][1]


@pytest.fixture(scope="module")
def first_runs(drawn_balloons, tmp_path_factory):
    """{runtime: folder of a run, as if interrupted after the second of four iterations}"""
    folders = {runtime: tmp_path_factory.mktemp(f"begun_{runtime}") / "run" for runtime in RUNTIMES}
    run_all(list(folders.items()))
    for folder in folders.values():
        for name in ("model_0000003.pth", "model_final.pth", "metrics.json"):
            (folder / name).unlink()
        (folder / "last_checkpoint").write_text("model_0000001.pth")
    return folders


@pytest.fixture(scope="module", params=RUNTIMES)
def resumed(request, first_runs):
    """{runtime: folder of its run resumed from one checkpoint}, for a checkpoint of each runtime"""
    source = first_runs[request.param]
    folders = {runtime: shutil.copytree(source, source.parent / f"resumed_{runtime}") for runtime in RUNTIMES}
    run_all([(runtime, folder, "--resume") for runtime, folder in folders.items()])
    return folders


@pytest.fixture(scope="module")
def evaluated(first_runs, tmp_path_factory):
    """{runtime: folder of its evaluation of one checkpoint}"""
    weights = str(first_runs["embedded"] / "model_0000001.pth")
    folders = {runtime: tmp_path_factory.mktemp(f"evaluated_{runtime}") for runtime in RUNTIMES}
    run_all([(runtime, folder, "--eval-only", "MODEL.WEIGHTS", weights) for runtime, folder in folders.items()])
    return folders


def checkpoint(folder, name):
    """Return the state of model and trainer, and the other entries without the output folder of the config."""
    content = torch.load(folder / name, weights_only=True)
    config = yaml.safe_load(content.pop("config"))
    return {key: content.pop(key) for key in ("model", "trainer")}, content | {"config": config | {"OUTPUT_DIR": ""}}


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def detections(folder):
    return json.loads((folder / "inference" / "coco_instances_results.json").read_text())


def copypaste_lines(folder):
    """Return the lines of AP, AP50, ... that Detectron2 logs for copying."""
    return re.findall(r"copypaste: (.+)", (folder / "log.txt").read_text())


def test_first_iterations_are_the_same_under_both(first_runs):
    (real, real_rest), (embedded, rest) = (checkpoint(first_runs[runtime], "model_0000001.pth") for runtime in RUNTIMES)
    torch.testing.assert_close(embedded, real, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert rest == real_rest and rest["iteration"] == 1


def test_resumed_losses_and_metrics_are_the_same_under_both(resumed):
    """The line of the last iteration has the medians of the third and the fourth iteration."""
    real, embedded = (metrics(resumed[runtime]) for runtime in RUNTIMES)
    assert [line["iteration"] for line in real] == [line["iteration"] for line in embedded] == [3, 4]
    assert {"total_loss", "loss_ce", "loss_bbox_0", "lr", "class_error"} <= real[0].keys()
    assert "bbox/AP50" in real[1]
    for ours, theirs in zip(embedded, real, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, nan_ok=True)


def test_final_model_and_trainer_are_the_same_under_both(resumed):
    (real, real_rest), (embedded, rest) = (checkpoint(resumed[runtime], "model_final.pth") for runtime in RUNTIMES)
    steps = {int(state["step"]) for state in real["trainer"]["_trainer"]["optimizer"]["state"].values()}
    assert steps == {4}, "the optimizer's state was resumed"
    torch.testing.assert_close(embedded, real, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert rest == real_rest and rest["iteration"] == 3


def test_detections_and_metrics_are_the_same_under_both(evaluated):
    real, embedded = (detections(evaluated[runtime]) for runtime in RUNTIMES)
    assert len(real) == len(embedded) > 0
    for ours, theirs in zip(embedded, real, strict=True):
        assert ours["bbox"] == pytest.approx(theirs["bbox"], rel=1e-5, abs=1e-5)
        assert ours | {"bbox": 0} == pytest.approx(theirs | {"bbox": 0}, rel=1e-5)
    lines = [copypaste_lines(evaluated[runtime]) for runtime in RUNTIMES]
    assert lines[0] == lines[1] and lines[0][:2] == ["Task: bbox", "AP,AP50,AP75,APs,APm,APl"]
