import torch
from torch import nn

from detectron2._missing import missing
from detectron2.config import CfgNode
from detectron2.utils.registry import Registry

META_ARCH_REGISTRY = Registry("META_ARCH")
META_ARCH_REGISTRY.__doc__ = "Whole models: callables `(cfg) -> nn.Module`."


def build_model(cfg: CfgNode) -> nn.Module:
    """Build `cfg.MODEL.META_ARCHITECTURE` on `cfg.MODEL.DEVICE`, without its weights."""
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in META_ARCH_REGISTRY:
        raise KeyError(missing(f"the meta-architecture {name!r} (it has {list(dict(META_ARCH_REGISTRY))})"))
    return META_ARCH_REGISTRY.get(name)(cfg).to(torch.device(cfg.MODEL.DEVICE))
