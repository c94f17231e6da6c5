from .._missing import missing_attribute
from .boxes import Boxes, BoxMode
from .image_list import ImageList
from .instances import Instances
from .masks import BitMasks, PolygonMasks, polygons_to_bitmask

__all__ = ["BitMasks", "BoxMode", "Boxes", "ImageList", "Instances", "PolygonMasks", "polygons_to_bitmask"]
__getattr__ = missing_attribute(__name__)
