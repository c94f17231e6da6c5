from . import builtin  # noqa: F401  (registers COCO)
from .coco import *  # noqa: F403
