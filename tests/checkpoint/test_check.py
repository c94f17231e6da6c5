"""Checks of a checkpoint against a config, beyond the sizes of its tensors."""

import logging
from dataclasses import replace

import pytest

from d2_detr.checkpoint.check import check_weights
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.utils.errors import InputError
from tests.inference.untrained import save_untrained


@pytest.fixture
def cfg(tmp_path):
    path, _, cfg = save_untrained(tmp_path)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(path)
    return cfg


@pytest.mark.parametrize("evaluation_only", [False, True])
def test_another_number_of_attention_heads_is_an_error(cfg, evaluation_only):
    check_weights(cfg, evaluation_only=evaluation_only)
    num_heads, cfg.MODEL.DETR.NHEADS = cfg.MODEL.DETR.NHEADS, 2
    with pytest.raises(InputError, match=rf"has {num_heads} attention heads, the model 2; set MODEL\.DETR\.NHEADS"):
        check_weights(cfg, evaluation_only=evaluation_only)


def test_another_dilation_is_a_warning(cfg, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("d2_detr"), "propagate", True)
    checkpoint = read_checkpoint(cfg.MODEL.WEIGHTS)
    dilated = replace(checkpoint, metadata=replace(checkpoint.metadata, dilation=True))
    monkeypatch.setattr("d2_detr.checkpoint.check.read_checkpoint", lambda weights: dilated)
    check_weights(cfg, evaluation_only=True)
    assert "was trained with dilation (DC5), but MODEL.RESNETS.RES5_DILATION is 1" in caplog.text


def test_an_evaluation_needs_weights(cfg):
    cfg.MODEL.WEIGHTS = ""
    check_weights(cfg, evaluation_only=False)
    with pytest.raises(InputError, match=r"MODEL\.WEIGHTS is empty"):
        check_weights(cfg, evaluation_only=True)
