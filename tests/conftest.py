"""Fixtures: a small dataset of drawn balloons, and options for a model that trains on it in seconds."""

import os
import tempfile

_DATASETS = tempfile.TemporaryDirectory(prefix="d2_detr_datasets_")
os.environ["DETECTRON2_DATASETS"] = _DATASETS.name
# Threads do not speed up models this small, and slow down commands that start workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

import d2_detr  # noqa: F401 - settles which detectron2 is used before a test imports it
from d2_detr.data.datasets import balloon
from d2_detr.data.datasets.catalog import datasets_folder
from d2_detr.data.datasets.synthetic import draw_dataset

settings.register_profile("untimed", deadline=None)  # the machine may be busy
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def drawn_balloons():
    """Draw `balloon_drawn_train` and `balloon_drawn_val` with a few images each; return their folder."""
    folder = datasets_folder() / "balloon_drawn"
    for seed, (split, num_images) in enumerate({"train": 8, "val": 4}.items()):
        draw_dataset(folder / split, num_images, size=64, seed=seed)
    balloon.convert(folder)
    return folder


@pytest.fixture
def tiny_opts(tmp_path):
    """Options that shrink the compact config so that a few iterations take a second."""
    return (
        f"OUTPUT_DIR {tmp_path} MODEL.DEVICE cpu MODEL.DETR.AUTOCAST off MODEL.DETR.HIDDEN_DIM 32 MODEL.DETR.NHEADS 4 "
        "MODEL.DETR.DIM_FEEDFORWARD 32 MODEL.DETR.ENC_LAYERS 1 MODEL.DETR.DEC_LAYERS 2 INPUT.MIN_SIZE_TRAIN (64,) "
        "INPUT.MIN_SIZE_TEST 64 SOLVER.IMS_PER_BATCH 4 SOLVER.MAX_ITER 6 SOLVER.STEPS (4,) "
        "SOLVER.CHECKPOINT_PERIOD 3 DATALOADER.NUM_WORKERS 0 TEST.REPORT False SEED 3"
    ).split()
