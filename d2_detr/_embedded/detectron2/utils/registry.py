from fvcore.common.registry import Registry

from detectron2._missing import missing_attribute

__all__ = ["Registry"]
__getattr__ = missing_attribute(__name__)
