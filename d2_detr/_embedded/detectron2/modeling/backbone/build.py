from detectron2._missing import missing
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry

from .backbone import Backbone

BACKBONE_REGISTRY = Registry("BACKBONE")
BACKBONE_REGISTRY.__doc__ = "Callables `(cfg, input_shape: ShapeSpec) -> Backbone`."


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
    """Build `cfg.MODEL.BACKBONE.NAME`; the input has as many channels as PIXEL_MEAN unless told otherwise."""
    name = cfg.MODEL.BACKBONE.NAME
    if name not in BACKBONE_REGISTRY:
        raise KeyError(missing(f"the backbone {name!r} (it has {list(dict(BACKBONE_REGISTRY))})"))
    backbone = BACKBONE_REGISTRY.get(name)(cfg, input_shape or ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN)))
    assert isinstance(backbone, Backbone), f"{name} built a {type(backbone)}, not a Backbone"
    return backbone
