"""Processes of a group that start, stop and fail together."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from types import FrameType
from typing import Any

from d2_detr.engine.interruption import SIGNALS, handled_by
from d2_detr.utils.errors import InputError, Interrupted

logger = logging.getLogger(__name__)

TICK = 1.0  # seconds between the beats of a process, and between the checks of them
SILENT = 35  # ticks without a beat after which a process counts as frozen; the group is ended within a minute
GRACE = 20.0  # seconds for the others to save what they have and to end by themselves
# For Python's tracker of resources, which complains about what a killed process could not release.
_QUIET = "ignore:resource_tracker"
INTERRUPTED = 128  # plus the signal: the exit code of a process that a signal has interrupted


class ProcessError(RuntimeError):
    """A process of a group has failed; the message has its traceback."""


@dataclass
class _Member:
    process: Any
    messages: Connection
    failure: tuple[float, bool, str] | None = None  # when, whether it is an InputError, its message
    beat: int = 0
    silence: int = 0  # ticks since the last beat


def run_group(target: Callable[..., None], argument_lists: Sequence[tuple[Any, ...]]) -> None:
    """Call `target(*arguments)` in a process for each of the argument lists, and wait for all of them.

    Signals are passed on. If a process fails, is killed or freezes, the others get some seconds to end by themselves.

    Raises:
        InputError: a process has raised it, was killed or does not respond.
        Interrupted: the processes have ended because of a signal.
        ProcessError: a process has raised another exception.
    """
    if _QUIET not in sys.warnoptions:
        sys.warnoptions.append(_QUIET)
    context = multiprocessing.get_context("spawn")
    beats = context.Array("L", len(argument_lists), lock=False)
    members = []
    for rank, arguments in enumerate(argument_lists):
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(rank, target, arguments, beats, sending, os.getpid()))
        process.start()
        sending.close()
        members.append(_Member(process, receiving))
    try:
        with handled_by(_Forward(members)):
            _supervise(members, beats)
    finally:
        for member in members:
            member.process.kill()


def _supervise(members: Sequence[_Member], beats: Sequence[int]) -> None:
    error: BaseException | None = None
    deadline = float("inf")
    while running := [member for member in members if member.process.exitcode is None]:
        if time.monotonic() > deadline:
            return _end(running, error)
        ready = wait_for([member.process.sentinel for member in running], timeout=TICK)
        for member in running:
            if member.process.sentinel in ready:  # a little before it has ended
                member.process.join(TICK)
        error = error or _first_error(members) or _frozen(members, beats)
        if error and deadline == float("inf"):
            deadline = time.monotonic() + GRACE
            if not isinstance(error, Interrupted):
                logger.error("%s. Ending the other processes", str(error).splitlines()[0].rstrip("."))
    _end([], error or _first_error(members))


def _end(running: Sequence[_Member], error: BaseException | None) -> None:
    for member in running:
        member.process.kill()
    if error:
        raise error


def _first_error(members: Sequence[_Member]) -> BaseException | None:
    """Return why a process has failed; a killed one is rather the cause than those that have lost the connection."""
    codes = {rank: member.process.exitcode for rank, member in enumerate(members) if member.process.exitcode}
    for rank, code in codes.items():
        number = -code if code < 0 else code - INTERRUPTED
        if number in SIGNALS:
            return Interrupted(number)
        if code < 0:
            return InputError(
                f"process {rank} of {len(members)} was killed by {signal.Signals(number).name}. The system does this "
                "if it runs out of memory: use a smaller batch, smaller images or fewer DATALOADER.NUM_WORKERS"
            )
    for member in members:
        if member.failure is None and member.process.exitcode and member.messages.poll():
            with suppress(EOFError):  # it has sent none
                member.failure = member.messages.recv()
    failures = [(*member.failure, rank) for rank, member in enumerate(members) if member.failure]
    if failures:
        _, is_input, text, rank = min(failures)
        return InputError(text) if is_input else ProcessError(f"process {rank} of {len(members)} failed\n\n{text}")
    return next((ProcessError(f"process {rank} exited with code {code}") for rank, code in codes.items()), None)


def _frozen(members: Sequence[_Member], beats: Sequence[int]) -> InputError | None:
    """Count the ticks of this process, not seconds: if the system suspends all of them, none is at fault."""
    for rank, (member, beat) in enumerate(zip(members, beats, strict=True)):
        member.silence = member.silence + 1 if beat == member.beat else 0
        member.beat = beat
        if member.silence > SILENT and member.process.exitcode is None:
            return InputError(
                f"process {rank} of {len(members)} has not responded for {SILENT} seconds: it was stopped, or waits "
                "for memory or for a disk"
            )
    return None


class _Forward:
    """A signal handler that passes the signal on."""

    def __init__(self, members: Sequence[_Member]):
        self._members, self._process = members, os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._process:
            for member in self._members:
                if member.process.pid and member.process.exitcode is None:
                    os.kill(member.process.pid, number)


def _run(
    rank: int, target: Callable[..., None], arguments: tuple[Any, ...], beats: Any, messages: Connection, parent: int
) -> None:
    """Run one of the processes; what it raises goes to the one that started it."""
    threading.Thread(target=_beat, args=(beats, rank, parent), daemon=True).start()
    try:
        target(*arguments)
    except KeyboardInterrupt as error:
        status = INTERRUPTED + getattr(error, "signal", signal.SIGINT)
    except (InputError, OSError) as error:
        messages.send((time.monotonic(), True, str(error)))
        status = 1
    except BaseException:
        messages.send((time.monotonic(), False, traceback.format_exc()))
        status = 1
    else:
        return
    sys.stdout.flush()
    os._exit(status)  # without waiting for threads that wait for the other processes


def _beat(beats: Any, rank: int, parent: int) -> None:
    while True:
        beats[rank] += 1
        time.sleep(TICK)
        if os.getppid() != parent:  # it was killed, and nobody else would end this process
            os._exit(1)
