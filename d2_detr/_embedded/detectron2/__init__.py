"""The part of Detectron2 that d2_detr uses, for where the real one is not installed; API.md lists its names."""

import sys
from functools import partial

from detectron2._missing import SubsetFinder, missing_attribute

__version__ = "0.6+embedded"
__getattr__ = partial(missing_attribute, sys.modules[__name__])

sys.meta_path.insert(0, SubsetFinder)
