from .._missing import missing_attribute
from .defaults import *  # noqa: F403
from .hooks import *  # noqa: F403
from .train_loop import *  # noqa: F403

__getattr__ = missing_attribute(__name__)
