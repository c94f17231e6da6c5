from detectron2._missing import missing_attribute

from .boxes import Boxes, BoxMode, pairwise_iou
from .image_list import ImageList
from .instances import Instances
from .masks import BitMasks, PolygonMasks, polygons_to_bitmask

__all__ = [
    "BitMasks",
    "BoxMode",
    "Boxes",
    "ImageList",
    "Instances",
    "PolygonMasks",
    "pairwise_iou",
    "polygons_to_bitmask",
]
__getattr__ = missing_attribute(__name__)
