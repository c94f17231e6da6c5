from iopath.common.file_io import HTTPURLHandler, PathHandler
from iopath.common.file_io import PathManager as _PathManager

__all__ = ["PathHandler", "PathManager"]

PathManager = _PathManager()
"""Opens local paths and http(s) addresses; it is not iopath's global one, so that other libraries cannot disturb it."""

PathManager.register_handler(HTTPURLHandler())
