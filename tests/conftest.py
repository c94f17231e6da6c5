"""Fixtures: a small drawn balloon dataset, and what trains on it in seconds."""

import os
import tempfile

# Before d2_detr registers its datasets below this folder.
_DATASETS = tempfile.TemporaryDirectory(prefix="d2_detr_datasets_")
os.environ["DETECTRON2_DATASETS"] = _DATASETS.name
# Models this small gain nothing from threads, which stand in each other's way where tools and their workers start some.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

import d2_detr  # noqa: F401 - settles which detectron2 answers before a test imports it
from d2_detr.data.datasets import balloon
from d2_detr.data.datasets.synthetic import draw_dataset


@pytest.fixture(scope="session")
def drawn_balloons():
    """`balloon_drawn_train` and `balloon_drawn_val` with a few pictures each; the folder that holds them."""
    folder = balloon.datasets_folder() / "balloon_drawn"
    for seed, (split, num_pictures) in enumerate({"train": 8, "val": 4}.items()):
        draw_dataset(folder / split, num_pictures, size=64, seed=seed)
    balloon.convert(folder)
    return folder


@pytest.fixture
def tiny_opts(tmp_path):
    """Options that shrink the compact configuration to what trains a few iterations in a second."""
    return (
        f"OUTPUT_DIR {tmp_path} MODEL.DEVICE cpu MODEL.DETR.AUTOCAST off MODEL.DETR.HIDDEN_DIM 32 MODEL.DETR.NHEADS 4 "
        "MODEL.DETR.DIM_FEEDFORWARD 32 MODEL.DETR.ENC_LAYERS 1 MODEL.DETR.DEC_LAYERS 2 INPUT.MIN_SIZE_TRAIN (64,) "
        "INPUT.MIN_SIZE_TEST 64 SOLVER.IMS_PER_BATCH 4 SOLVER.MAX_ITER 6 SOLVER.STEPS (4,) "
        "SOLVER.CHECKPOINT_PERIOD 3 DATALOADER.NUM_WORKERS 0 TEST.REPORT False SEED 3"
    ).split()
