"""Communication between processes, which also works in a single one."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from detectron2._missing import missing_attribute

__getattr__ = missing_attribute(__name__)

_local_group: dist.ProcessGroup | None = None


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _initialized() else 1


def get_rank() -> int:
    """Return the rank of this process among all."""
    return dist.get_rank() if _initialized() else 0


def is_main_process() -> bool:
    """Return whether this is the process of rank 0."""
    return get_rank() == 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Group the ranks of each machine; all call it after `init_process_group`."""
    global _local_group
    _local_group, _ = dist.new_subgroups(num_workers_per_machine)


def get_local_rank() -> int:
    """Return the rank of this process on its machine."""
    if not _initialized():
        return 0
    assert _local_group is not None, "no local process group; call create_local_process_group() first"
    return dist.get_rank(_local_group)


def synchronize() -> None:
    """Wait until all processes have called this function."""
    if get_world_size() > 1:
        dist.barrier(device_ids=[torch.cuda.current_device()] if dist.get_backend() == dist.Backend.NCCL else None)


@functools.cache
def _cpu_group() -> Any:
    """Return a group of all ranks that exchanges objects in host memory."""
    return dist.new_group(backend="gloo") if dist.get_backend() == dist.Backend.NCCL else dist.group.WORLD


def all_gather(data: Any) -> list[Any]:
    """Return the picklable `data` of every rank, on every rank."""
    gathered = [data] * get_world_size()
    if get_world_size() > 1:
        dist.all_gather_object(gathered, data, group=_cpu_group())
    return gathered


def gather(data: Any, dst: int = 0) -> list[Any]:
    """Return the picklable `data` of every rank on rank `dst`, and [] elsewhere."""
    gathered = [data] * get_world_size() if get_rank() == dst else []
    if get_world_size() > 1:
        dist.gather_object(data, gathered or None, dst=dst, group=_cpu_group())
    return gathered


def shared_random_seed() -> int:
    """Return a random number in [0, 2^31) that all ranks share; all must call it."""
    return all_gather(np.random.randint(2**31))[0]
