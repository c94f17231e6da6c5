"""Opening and writing of files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from iopath.common.file_io import HTTPURLHandler
from iopath.common.file_io import PathManager as _PathManager

# For local paths and http(s) URLs; separate from iopath's global one, whose handlers other libraries change.
PathManager = _PathManager()
PathManager.register_handler(HTTPURLHandler())


@contextmanager
def atomic_write(path: str, mode: str) -> Iterator[IO[Any]]:
    """Open a file that replaces `path` once it is complete."""
    with PathManager.open(f"{path}.part", mode) as f:
        yield f
    os.replace(f"{path}.part", path)
