import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from iopath.common.file_io import HTTPURLHandler
from iopath.common.file_io import PathManager as _PathManager

PathManager = _PathManager()
"""Opens local paths and http(s) addresses; it is not iopath's global one, so that other libraries cannot disturb it."""

PathManager.register_handler(HTTPURLHandler())


@contextmanager
def open_complete(path: str, mode: str) -> Iterator[IO]:
    """Open for writing; the file takes its name only once it is complete."""
    with PathManager.open(f"{path}.part", mode) as f:
        yield f
    os.replace(f"{path}.part", path)
