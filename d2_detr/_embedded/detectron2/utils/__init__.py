from .._missing import missing_attribute

__getattr__ = missing_attribute(__name__)
