"""The part of Detectron2 that d2_detr uses, for where the real one is not installed; API.md lists its names."""

import sys

from detectron2._missing import MissingModules, missing_attribute

__version__ = "0.6+embedded"
__getattr__ = missing_attribute(__name__)

sys.meta_path.append(MissingModules)
