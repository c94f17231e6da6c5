import multiprocessing

import pytest

from d2_detr.config import load_config
from d2_detr.data.datasets.loading import load_datasets
from d2_detr.data.loaders import build_test_loader
from d2_detr.data.mapper import DetrDatasetMapper


@pytest.fixture
def forkserver():
    """What Python 3.14 starts processes with, unless it is told otherwise."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("forkserver", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def test_evaluation_workers_are_forked(drawn_balloons, tiny_opts, monkeypatch, forkserver):
    cfg = load_config("detr_compact_balloon_drawn.yaml", [*tiny_opts, "DATALOADER.NUM_WORKERS", "1"])
    loader = build_test_loader(cfg, load_datasets(cfg, evaluation_only=True).test[0])
    monkeypatch.setattr(DetrDatasetMapper, "__call__", lambda self, record: {"from": "this process"})
    assert list(loader) == [[{"from": "this process"}]] * 4
