"""A lock on the folder of a run, so that two runs do not overwrite each other's files."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d2_detr.utils.errors import InputError

logger = logging.getLogger(__name__)
LOCK = ".lock"


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Lock a folder for the duration of the block, or until this process ends in any way.

    Raises:
        InputError: another process, on this machine or on one that shares the folder, has locked it; or it is a file.
    """
    if Path(folder).is_file():
        raise InputError(f"{folder}: a file, expected a folder to write to")
    path = Path(folder) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not inherited by a forked process
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise InputError(
                f"{folder} is in use by {owner}: wait until that run has ended, or give another --output"
            ) from error
        except OSError as error:  # such as a network drive without locks
            logger.warning("%s cannot be locked (%s): do not start a second run into it", folder, error.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
