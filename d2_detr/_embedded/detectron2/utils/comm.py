"""Collective communication that also works in a single process, where every call is trivial."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

_local_group: dist.ProcessGroup | None = None


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    return dist.get_world_size() if _initialized() else 1


def get_rank() -> int:
    return dist.get_rank() if _initialized() else 0


def is_main_process() -> bool:
    return get_rank() == 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Group the ranks of each machine; all processes call it together, after `init_process_group`."""
    global _local_group
    _local_group, _ = dist.new_subgroups(num_workers_per_machine)


def get_local_rank() -> int:
    """Rank among the processes of this machine."""
    if not _initialized():
        return 0
    assert _local_group is not None, "call create_local_process_group first, after init_process_group"
    return dist.get_rank(_local_group)


def synchronize() -> None:
    """Wait until all processes arrive here."""
    if get_world_size() == 1:
        return
    on_gpu = dist.get_backend() == dist.Backend.NCCL
    dist.barrier(device_ids=[torch.cuda.current_device()] if on_gpu else None)


@functools.cache
def _cpu_group() -> dist.ProcessGroup:
    """All ranks, on gloo: objects are exchanged in host memory even where gradients go through NCCL."""
    return dist.new_group(backend="gloo") if dist.get_backend() == dist.Backend.NCCL else dist.group.WORLD


def all_gather(data: Any) -> list[Any]:
    """Return the picklable `data` of every rank, on every rank."""
    gathered = [data] * get_world_size()
    if get_world_size() > 1:
        dist.all_gather_object(gathered, data, group=_cpu_group())
    return gathered


def gather(data: Any, dst: int = 0) -> list[Any]:
    """Return the picklable `data` of every rank on rank `dst`, and an empty list elsewhere."""
    gathered = [data] * get_world_size() if get_rank() == dst else []
    if get_world_size() > 1:
        dist.gather_object(data, gathered or None, dst=dst, group=_cpu_group())
    return gathered


def shared_random_seed() -> int:
    """A random number in [0, 2^31) that all ranks agree on; all of them must call it."""
    return all_gather(np.random.randint(2**31))[0]
