from fvcore.common.checkpoint import Checkpointer, PeriodicCheckpointer

from detectron2._missing import missing_attribute

from .detection_checkpoint import DetectionCheckpointer

__all__ = ["Checkpointer", "DetectionCheckpointer", "PeriodicCheckpointer"]

__getattr__ = missing_attribute(__name__)
