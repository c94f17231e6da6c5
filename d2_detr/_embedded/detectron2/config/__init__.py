from .._missing import missing_attribute
from .config import CfgNode, configurable, get_cfg

__all__ = ["CfgNode", "configurable", "get_cfg"]
__getattr__ = missing_attribute(__name__)
