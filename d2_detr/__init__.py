"""d2_detr: fine-tune DETR, as a Detectron2 plugin.

Importing it decides how OpenMP's threads wait and which `detectron2` is used, so import it before torch and detectron2.
It registers the meta-architecture `Detr` and the torchvision backbones. `finetune`, `Predictor` and what they need are
imported on first use.
"""

# ruff: noqa: E402 - only then can torch and detectron2 be imported
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

from d2_detr._runtime import limit_spinning, settle_detectron2
from d2_detr.utils.command_line import announce

announce(__version__)
limit_spinning()
settle_detectron2()

from d2_detr.config import add_detr_config
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.modeling.detr import Detr

if TYPE_CHECKING:
    from d2_detr.inference.predictor import Predictor
    from d2_detr.workflows.finetune import finetune

__all__ = ["Detr", "DetrDatasetMapper", "Predictor", "add_detr_config", "finetune"]

_ON_FIRST_USE = {"Predictor": "d2_detr.inference.predictor", "finetune": "d2_detr.workflows.finetune"}


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ON_FIRST_USE[name]), name)
