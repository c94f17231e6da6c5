"""Which implementations can be compared on a config, and how each is built."""

from __future__ import annotations

from typing import Any

from d2_detr.engine.benchmark import hugging_face, native
from d2_detr.engine.benchmark.contestants import OURS, PRECISIONS, Contestant, Ours

from detectron2.config import CfgNode


def reasons_to_leave_out(cfg: CfgNode) -> dict[str, str]:
    """Return why each implementation that is not compared cannot express the model, or is not there."""
    peers = {hugging_face.NAME: hugging_face.reason_to_leave_out, native.NAME: native.reason_to_leave_out}
    common = _model_without_peers(cfg)
    reasons = {name: common or reason(cfg) for name, reason in peers.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def contestant_names(cfg: CfgNode, precision: str, *, peers: bool) -> list[str]:
    """Return the names of the contestants at a precision, this project's first."""
    left_out = reasons_to_leave_out(cfg) if peers else dict.fromkeys((hugging_face.NAME, native.NAME))
    names = [OURS]
    if hugging_face.NAME not in left_out:
        names += [hugging_face.NAME, hugging_face.DEFAULT_DROPOUT]
        names += [hugging_face.CAST_WEIGHTS] if PRECISIONS[precision] else []
    return names + ([native.NAME] if native.NAME not in left_out else [])


def build_contestants(
    cfg: CfgNode, batch: list[dict[str, Any]], precision: str, names: list[str]
) -> dict[str, Contestant]:
    """Build contestants with the same weights, which depend on nothing but the config."""
    ours = Ours(cfg, batch, precision)
    return {name: ours if name == OURS else _build_peer(name, cfg, ours, precision) for name in names}


def _build_peer(name: str, cfg: CfgNode, ours: Ours, precision: str) -> Contestant:
    if name == native.NAME:
        return native.Native(cfg, ours.model, ours.tensors(), precision)
    kinds = {
        hugging_face.NAME: hugging_face.HuggingFace,
        hugging_face.DEFAULT_DROPOUT: hugging_face.DefaultDropout,
        hugging_face.CAST_WEIGHTS: hugging_face.CastHuggingFace,
    }
    return kinds[name](name, cfg, ours.model, ours.tensors(), precision)


def _model_without_peers(cfg: CfgNode) -> str | None:
    """Return what no other implementation has; None if there is nothing."""
    resnets = cfg.MODEL.RESNETS
    if cfg.MODEL.MASK_ON:
        return "only boxes are compared; this model has a mask head (MODEL.MASK_ON)"
    if cfg.MODEL.BACKBONE.NAME != "build_torchvision_resnet_backbone":
        return f"only torchvision's ResNets are compared, not {cfg.MODEL.BACKBONE.NAME}"
    if resnets.NORM != "FrozenBN":
        return f"it freezes batch norm; this model trains it (MODEL.RESNETS.NORM {resnets.NORM})"
    if list(resnets.OUT_FEATURES) != ["res5"]:
        return f"its ResNet ends at res5; this one at {', '.join(resnets.OUT_FEATURES)} (MODEL.RESNETS.OUT_FEATURES)"
    return None
