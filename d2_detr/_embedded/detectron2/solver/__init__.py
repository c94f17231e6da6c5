from detectron2._missing import missing_attribute

from .build import build_lr_scheduler, build_optimizer, get_default_optimizer_params
from .lr_scheduler import LRMultiplier, LRScheduler, WarmupParamScheduler

__all__ = [
    "LRMultiplier",
    "LRScheduler",
    "WarmupParamScheduler",
    "build_lr_scheduler",
    "build_optimizer",
    "get_default_optimizer_params",
]

__getattr__ = missing_attribute(__name__)
