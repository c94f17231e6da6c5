from .build import LRMultiplier, build_lr_scheduler

__all__ = ["LRMultiplier", "build_lr_scheduler"]
