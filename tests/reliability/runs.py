"""Trainings that are killed and resumed, and what they leave."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from d2_detr.checkpoint.resume import has_checkpoint
from d2_detr.engine.hooks.metrics import TIMES

CONFIG = "detr_compact_balloon_drawn.yaml"
# Everything that has a state: dropout, crops, an average of the weights, patience, both kinds of checkpoints.
OPTS = (
    "MODEL.DEVICE cpu MODEL.DETR.AUTOCAST off MODEL.DETR.HIDDEN_DIM 32 MODEL.DETR.NHEADS 4 MODEL.DETR.DROPOUT 0.1 "
    "MODEL.DETR.DIM_FEEDFORWARD 32 MODEL.DETR.ENC_LAYERS 1 MODEL.DETR.DEC_LAYERS 2 INPUT.MIN_SIZE_TRAIN (48,64) "
    "INPUT.MIN_SIZE_TEST 64 INPUT.CROP.ENABLED True INPUT.CROP.SIZE [32,64] SOLVER.IMS_PER_BATCH 3 SOLVER.MAX_ITER 45 "
    "SOLVER.STEPS (30,) SOLVER.CHECKPOINT_PERIOD 10 SOLVER.EMA_DECAY 0.9 TEST.EVAL_PERIOD 7 TEST.REPORT False SEED 3"
).split()


def start(folder: Path, *opts: str, resume: bool = False, before: str = "") -> subprocess.Popen:
    """Start a training in a process and a group of its own.

    Args:
        before: Python code that the process runs first.
    """
    arguments = ["train", "--config", CONFIG, "--output", str(folder), *(["--resume"] if resume else []), *OPTS, *opts]
    code = f"import sys; sys.argv[1:] = {arguments}\nfrom d2_detr.cli import main\n{before}\nmain()"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def kill(process: subprocess.Popen) -> None:
    """Kill a training with its workers, as a machine does that is taken away."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def end(process: subprocess.Popen, seconds: float) -> str:
    """Wait until a training has ended, successful or not; return what it printed."""
    try:
        return process.communicate(timeout=seconds)[0]
    finally:
        kill(process)


def finish(process: subprocess.Popen) -> str:
    """Wait for a training to succeed; return what it printed."""
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


def train_with_kills(folder: Path, rng: random.Random, kills: int, *opts: str) -> int:
    """Train to the end, and kill the process at random moments before; return how often it was killed."""
    killed = 0
    while killed < kills:
        process = start(folder, *opts, resume=True)
        while not has_checkpoint(folder) and process.poll() is None:
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 4.0))
        if process.poll() is not None:
            break
        kill(process)
        killed += 1
    finish(start(folder, *opts, resume=True))
    return killed


def outcome(folder: Path) -> dict[str, Any]:
    """Return everything in which two trainings must agree."""
    final = torch.load(folder / "model_final.pth", weights_only=True)
    best = torch.load(folder / "model_best.pth", weights_only=True)
    return {
        "weights": digest(final["model"]),
        "trained": digest(final["trainer"]["hooks"]["Ema"]["trained"]),
        "optimizer": digest(final["trainer"]["_trainer"]["optimizer"]["state"]),
        "data": final["trainer"]["data"],
        "best": digest(best["model"]) | {"threshold": best["threshold"], "iteration": best["iteration"]},
        "metrics": metrics(folder),
        "predictions": (folder / "inference" / "coco_instances_results.json").read_bytes(),
        "best predictions": (folder / "model_best_results.json").read_bytes(),
    }


def metrics(folder: Path) -> list[dict[str, str]]:
    """Return the lines of metrics.json without the times; as text, in which NaN equals itself."""
    lines = (folder / "metrics.json").read_text().splitlines()
    return [{name: str(value) for name, value in json.loads(line).items() if name not in TIMES} for line in lines]


def digest(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the bytes of all tensors in nested dicts, by their path."""
    if isinstance(tree, torch.Tensor):
        return {prefix: tree.numpy().tobytes()}
    if isinstance(tree, dict):
        return {name: data for key, value in tree.items() for name, data in digest(value, f"{prefix}/{key}").items()}
    return {prefix: tree}


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Compare two outcomes; a failure names what differs, not megabytes of bytes."""
    differing = [name for name in first if first[name] != second[name]]
    for name in ("metrics",):
        if name in differing:
            assert first[name] == second[name]
    assert not differing
