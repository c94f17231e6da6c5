"""Peak memory of a training step."""

from __future__ import annotations

import ctypes
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from d2_detr.engine.benchmark.contestants import Contestant
from d2_detr.engine.benchmark.lineup import build_contestants
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode

_PROC = Path("/proc/self")
_RESET_PEAK = "5"  # what clear_refs takes for it


def peak_memory(cfg: CfgNode, batch: list[dict[str, Any]], precision: str, contestant: Contestant) -> int:
    """Return the bytes that a training step needs at its peak, in addition to weights and optimizer.

    On the CPU, the contestant is built once more, in a process of its own: here it would reuse what others have freed.

    Raises:
        InputError: on the CPU of another system than Linux.
    """
    if cfg.MODEL.DEVICE.startswith("cuda"):
        return _peak_on_cuda(contestant)
    if not (_PROC / "clear_refs").exists():
        raise InputError("--memory: on the CPU the peak can only be measured on Linux; leave the option out")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak_in_process, cfg, batch, precision, contestant.name, torch.get_num_threads()).result()


def _peak_on_cuda(contestant: Contestant) -> int:
    contestant.train_step()
    contestant.optimizer.zero_grad()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    contestant.train_step()
    return torch.cuda.max_memory_allocated() - before


def _peak_in_process(cfg: CfgNode, batch: list[dict[str, Any]], precision: str, name: str, num_threads: int) -> int:
    torch.set_num_threads(num_threads)
    contestant = build_contestants(cfg, batch, precision, [name])[name]
    contestant.train_step()  # creates the state of the optimizer
    contestant.optimizer.zero_grad()
    return peak_rss(contestant.train_step)


def peak_rss(call: Callable[[], object]) -> int:
    """Return by how many bytes the memory of this process grows during a call, at its peak."""
    _return_freed_memory()
    (_PROC / "clear_refs").write_text(_RESET_PEAK)
    before = _status_bytes("VmRSS")
    call()
    return max(0, _status_bytes("VmHWM") - before)


def _return_freed_memory() -> None:
    """Return freed memory to the system, where the C library can: a step would reuse it without growing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def _status_bytes(name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB$", (_PROC / "status").read_text(), re.MULTILINE)
    assert match is not None, name
    return int(match[1]) * 1024
