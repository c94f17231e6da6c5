from ..._missing import missing_attribute
from . import builtin  # noqa: F401  (registers COCO)
from .coco import *  # noqa: F403

__getattr__ = missing_attribute(__name__)
