from .._missing import missing_attribute
from .build import LRMultiplier, build_lr_scheduler

__all__ = ["LRMultiplier", "build_lr_scheduler"]
__getattr__ = missing_attribute(__name__)
