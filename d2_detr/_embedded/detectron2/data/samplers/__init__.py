from detectron2._missing import missing_attribute

from .distributed_sampler import *  # noqa: F403

__getattr__ = missing_attribute(__name__)
