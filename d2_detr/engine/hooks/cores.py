"""As many threads as there are cores that other processes leave free."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from detectron2.engine import HookBase

logger = logging.getLogger(__name__)

PROC = Path("/proc")
PERIOD = 3.0  # seconds; the counters of the system have a resolution of 0.01 seconds


class ShareCores(HookBase):
    """Gives up threads while other processes use the cores, and takes them back afterwards.

    The threads of an operation wait for each other, so one of them that has no core holds up all. Two trainings with
    two threads each on two cores are together slower than one alone; with one thread each they are as fast
    (docs/benchmarks.md). The number of threads may change the last digits of results; where OMP_NUM_THREADS is set it
    stays, as it does where the system does not tell how busy it is.
    """

    def before_train(self) -> None:
        """Start to measure."""
        self._all_threads = torch.get_num_threads()
        self._enabled = "OMP_NUM_THREADS" not in os.environ and (PROC / "stat").exists()
        self._warned = False
        if self._enabled:
            self._start = time.monotonic(), *_cpu_seconds()

    def after_step(self) -> None:
        """Set the number of threads to the number of cores that others have not used in the last seconds."""
        if not self._enabled or time.monotonic() - self._start[0] < PERIOD:
            return
        now = time.monotonic(), *_cpu_seconds()
        elapsed, busy, own = (after - before for after, before in zip(now, self._start, strict=True))
        self._start = now
        cores = len(_cores())
        used_by_others = max(0.0, busy - own) / elapsed
        threads = min(self._all_threads, max(1, int(cores - used_by_others + 0.5)))
        if threads < torch.get_num_threads() and not self._warned:
            self._warned = True
            logger.warning(
                "Other processes use %.1f of the %d CPU cores: this training leaves these to them, and is slower than "
                "it would be alone",
                used_by_others, cores,
            )  # fmt: skip
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)


def _cores() -> set[int]:
    return os.sched_getaffinity(0)


def _cpu_seconds() -> tuple[float, float]:
    """Return the seconds that the cores of this process have been busy, and those of its own process tree."""
    per_second = os.sysconf("SC_CLK_TCK")
    names = {f"cpu{core}" for core in _cores()}
    lines = map(str.split, (PROC / "stat").read_text().splitlines())
    # user, nice, system, (idle, waiting for disks,) interrupts
    busy = sum(sum(map(int, (*times[:3], *times[5:7]))) for name, *times in lines if name in names)
    return busy / per_second, _ticks_of_tree(_processes(), os.getpid()) / per_second


def _processes() -> dict[int, tuple[int, int]]:
    """Return the parent and the ticks of every process, with those of its children that have ended."""
    processes = {}
    for file in PROC.glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()  # the name before it may have spaces
        except OSError:  # it has ended
            continue
        processes[int(file.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    return processes


def _ticks_of_tree(processes: Mapping[int, tuple[int, int]], root: int) -> int:
    children = [pid for pid, (parent, _) in processes.items() if parent == root]
    return processes[root][1] + sum(_ticks_of_tree(processes, child) for child in children)
