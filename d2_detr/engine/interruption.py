"""Signals that end a training, which keeps what was learned."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from d2_detr.utils.errors import Interrupted

from detectron2.utils import comm

# Ctrl-C; what the system, SLURM and Kubernetes send before they kill; what SLURM sends ahead if asked to (--signal).
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
SAME = 1.0  # seconds within which a repetition is the same request: many senders signal a process and its group


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let a function handle SIGNALS within the block, if this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler_before in previous.items():
            signal.signal(number, handler_before)


class Interruption:
    """A context in which a first signal only sets `signal`, so that the iteration can be finished and saved.

    The second signal ends the process at once. `immediately` is for work that is done again when the training resumes.
    """

    def __init__(self) -> None:
        """Create the context; signals are handled once it is entered."""
        self.signal = 0
        self._time = 0.0
        self._raises = False
        self._handlers = handled_by(self._receive)

    def __enter__(self) -> Interruption:
        """Handle SIGNALS, if this is the main thread."""
        self._process = os.getpid()
        self._handlers.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Restore the previous handlers."""
        self._handlers.__exit__(*error)

    def is_requested(self) -> bool:
        """Return whether any of the processes has received a signal; all must call this together."""
        self.signal = max(comm.all_gather(self.signal))
        return bool(self.signal)

    @contextmanager
    def immediately(self) -> Iterator[None]:
        """Let a signal raise Interrupted within the block, at once if one has been received."""
        self._raises = True
        try:
            if self.signal:
                raise Interrupted(self.signal)
            yield
        finally:
            self._raises = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked process, which inherits the handler and is needed until the end
        if self.signal:
            if time.monotonic() - self._time > SAME:
                signal.signal(number, signal.SIG_DFL)
                os.kill(self._process, number)
            return
        self.signal, self._time = number, time.monotonic()
        if comm.is_main_process():
            then = "" if self._raises else ": finishing this iteration, then saving (again: stops at once)"
            # Printing is not allowed here: the signal may have come while something is printed.
            os.write(2, f"\nReceived {signal.Signals(number).name}{then}\n".encode())
        if self._raises:
            raise Interrupted(number)
