from detectron2._missing import missing_attribute

from .backbone import Backbone
from .build import BACKBONE_REGISTRY, build_backbone

__all__ = ["BACKBONE_REGISTRY", "Backbone", "build_backbone"]
__getattr__ = missing_attribute(__name__)
