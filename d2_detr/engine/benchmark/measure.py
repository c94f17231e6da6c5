"""Alternating measurement of times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from tqdm import tqdm

WARM_UP_CALLS = {"cpu": 1, "cuda": 3}  # CUDA also chooses algorithms and loads kernels in the first calls


@dataclass(frozen=True)
class Timing:
    """Seconds per call."""

    median: float
    minimum: float
    maximum: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.minimum:.3f} to {self.maximum:.3f})"


def time_alternately(
    calls: Mapping[str, Callable[[], object]], repeats: int, device: torch.device, description: str = ""
) -> dict[str, Timing]:
    """Time calls in turn, so that a change of the machine's load or clock affects all of them.

    Every round begins with another call; rounds for warm-up are not counted. The progress is shown on stderr.
    """
    names, warm_up = list(calls), WARM_UP_CALLS.get(device.type, 1)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with tqdm(total=(warm_up + repeats) * len(names), desc=description, unit=" calls") as progress:
        for number in range(warm_up + repeats):
            start = number % len(names)
            for name in names[start:] + names[:start]:
                progress.set_postfix_str(name)
                elapsed = time_call(calls[name], device)
                if number >= warm_up:
                    seconds[name].append(elapsed)
                progress.update()
    return {name: Timing(statistics.median(times), min(times), max(times)) for name, times in seconds.items()}


def time_call(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds until a call, and what it has started on the device, ends."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
