"""The subset of Detectron2 that d2_detr uses; API.md lists its names."""

import sys

from detectron2._missing import MissingSubmodules, missing_attribute

__version__ = "0.6+embedded"
__getattr__ = missing_attribute(__name__)

sys.meta_path.append(MissingSubmodules)
