"""Check before a run whether its weights can be loaded."""

from __future__ import annotations

import logging
from collections.abc import Collection

import torch

from d2_detr.checkpoint.adapt import PARTS
from d2_detr.checkpoint.checkpointer import NOT_FROZEN, read_adapted
from d2_detr.checkpoint.layouts import StateDict
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

logger = logging.getLogger(__name__)


def check_weights(cfg: CfgNode, *, evaluation_only: bool) -> None:
    """Check that MODEL.WEIGHTS and, for a training, MODEL.DETR.FROZEN_WEIGHTS exist and match the model of a config.

    The model is built without memory.

    Raises:
        FileNotFoundError, ConnectionError, InputError: they cannot be read, or do not match.
    """
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg).state_dict()
    if evaluation_only and not cfg.MODEL.WEIGHTS:
        raise InputError("MODEL.WEIGHTS is empty, so there is no model to evaluate: add --weights FILE")
    if cfg.MODEL.WEIGHTS:
        _check(cfg, cfg.MODEL.WEIGHTS, model, may_reinitialize=() if evaluation_only else PARTS)
    if cfg.MODEL.DETR.FROZEN_WEIGHTS and not evaluation_only:
        _check(cfg, cfg.MODEL.DETR.FROZEN_WEIGHTS, model, may_reinitialize=NOT_FROZEN)


def _check(cfg: CfgNode, weights: str, model: StateDict, *, may_reinitialize: Collection[str]) -> None:
    checkpoint = read_checkpoint(weights)
    read_adapted(checkpoint, model, may_reinitialize=may_reinitialize)
    num_heads = checkpoint.metadata.num_heads  # which leaves no trace in the tensors
    if num_heads not in (None, cfg.MODEL.DETR.NHEADS):
        raise InputError(
            f"{weights}: the checkpoint has {num_heads} attention heads, the model {cfg.MODEL.DETR.NHEADS}; set "
            f"MODEL.DETR.NHEADS {num_heads}"
        )
    if checkpoint.metadata.dilation not in (None, cfg.MODEL.RESNETS.RES5_DILATION == 2):
        logger.warning(
            "%s was trained %s dilation (DC5), but MODEL.RESNETS.RES5_DILATION is %d",
            weights, "with" if checkpoint.metadata.dilation else "without", cfg.MODEL.RESNETS.RES5_DILATION,
        )  # fmt: skip
