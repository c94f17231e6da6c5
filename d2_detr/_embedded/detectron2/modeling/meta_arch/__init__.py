from detectron2._missing import missing_attribute

from .build import META_ARCH_REGISTRY, build_model

__all__ = ["META_ARCH_REGISTRY", "build_model"]
__getattr__ = missing_attribute(__name__)
