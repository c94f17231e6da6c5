"""Ctrl-C during a training, which keeps what was learned."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType

from detectron2.utils import comm

logger = logging.getLogger(__name__)


class Interruption:
    """A context in which the first Ctrl-C only sets `requested`, so that the iteration can be finished and saved.

    The second one interrupts at once. Several processes are interrupted in different iterations and cannot wait for
    each other; for them the first one does.
    """

    def __init__(self) -> None:
        """Create the context; signals are handled once it is entered."""
        self.requested = False

    def __enter__(self) -> Interruption:
        """Handle SIGINT, if this is the main thread of a single process."""
        self._is_active = comm.get_world_size() == 1 and threading.current_thread() is threading.main_thread()
        self._process = os.getpid()
        if self._is_active:
            self._previous = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the previous handler."""
        if self._is_active:
            signal.signal(signal.SIGINT, self._previous)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a worker of a loader, which inherits the handler and is needed until the end
        self.requested = True
        signal.signal(signal.SIGINT, self._previous)
        logger.info("Interrupted: finishing this iteration, then saving (Ctrl-C again stops at once)")
