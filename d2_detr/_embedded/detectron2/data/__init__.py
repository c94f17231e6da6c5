from .._missing import missing_attribute
from . import datasets, samplers, transforms  # noqa: F401  (datasets registers COCO)
from .build import *  # noqa: F403
from .catalog import *  # noqa: F403
from .common import *  # noqa: F403

__getattr__ = missing_attribute(__name__)
