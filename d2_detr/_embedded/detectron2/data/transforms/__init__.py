from fvcore.transforms.transform import *  # noqa: F403

from detectron2._missing import missing_attribute

from .augmentation import *  # noqa: F403
from .augmentation_impl import *  # noqa: F403
from .transform import *  # noqa: F403

__getattr__ = missing_attribute(__name__)
