"""Ctrl-C in a training, which keeps what was learned."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType

from detectron2.utils import comm

logger = logging.getLogger(__name__)


class Interruption:
    """A context in which the first Ctrl-C is only noted, as `wanted`, so that an iteration can be finished; the second
    ends at once.

    Several processes are interrupted in different iterations and cannot wait for each other; they end at the first.
    """

    def __init__(self) -> None:
        self.wanted = False

    def __enter__(self) -> Interruption:
        self._in_charge = comm.get_world_size() == 1 and threading.current_thread() is threading.main_thread()
        self._process = os.getpid()
        if self._in_charge:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._in_charge:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # the workers of a loader, who have this from their parent, are needed until the end
        self.wanted = True
        signal.signal(signal.SIGINT, self._before)
        logger.info("Interrupted: this iteration is finished and saved (Ctrl-C once more ends at once)")
