"""Collective communication that also works in a single process, where every call is trivial."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

_LOCAL_PROCESS_GROUP: dist.ProcessGroup | None = None


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    return dist.get_world_size() if _initialized() else 1


def get_rank() -> int:
    return dist.get_rank() if _initialized() else 0


def is_main_process() -> bool:
    return get_rank() == 0


@functools.cache
def create_local_process_group(num_workers_per_machine: int) -> None:
    """Group the ranks of each machine; all processes call it together, after `init_process_group`."""
    global _LOCAL_PROCESS_GROUP
    assert _LOCAL_PROCESS_GROUP is None, "the local process group exists already"
    world_size = get_world_size()
    assert world_size % num_workers_per_machine == 0, f"{world_size=} is no multiple of {num_workers_per_machine=}"
    for first in range(0, world_size, num_workers_per_machine):
        ranks = range(first, first + num_workers_per_machine)
        group = dist.new_group(list(ranks))
        if get_rank() in ranks:
            _LOCAL_PROCESS_GROUP = group


def get_local_process_group() -> dist.ProcessGroup:
    """The group of the processes on this machine, e.g. for SyncBN per machine."""
    assert _LOCAL_PROCESS_GROUP is not None, (
        "There is no local process group: start the processes with detectron2.engine.launch, "
        "or call comm.create_local_process_group after init_process_group"
    )
    return _LOCAL_PROCESS_GROUP


def get_local_rank() -> int:
    """Rank among the processes of this machine."""
    return dist.get_rank(get_local_process_group()) if _initialized() else 0


def get_local_size() -> int:
    """Number of processes on this machine."""
    return dist.get_world_size(get_local_process_group()) if _initialized() else 1


def synchronize() -> None:
    """Wait until all processes arrive here."""
    if get_world_size() == 1:
        return
    if dist.get_backend() == dist.Backend.NCCL:
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


@functools.cache
def _cpu_group() -> dist.ProcessGroup:
    """All ranks, on gloo: objects are exchanged in host memory even where gradients go through NCCL."""
    return dist.new_group(backend="gloo") if dist.get_backend() == dist.Backend.NCCL else dist.group.WORLD


def all_gather(data: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Return the picklable `data` of every rank, on every rank."""
    if get_world_size() == 1:
        return [data]
    group = group or _cpu_group()
    gathered = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, data, group=group)
    return gathered


def gather(data: Any, dst: int = 0, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Return the picklable `data` of every rank on rank `dst`, and an empty list elsewhere."""
    if get_world_size() == 1:
        return [data]
    group = group or _cpu_group()
    size = dist.get_world_size(group)
    if size == 1:
        return [data]
    gathered = [None] * size if dist.get_rank(group) == dst else None
    dist.gather_object(data, gathered, dst=dst, group=group)
    return gathered or []


def shared_random_seed() -> int:
    """A random number in [0, 2^31) that all ranks agree on; all of them must call it."""
    return all_gather(np.random.randint(2**31))[0]


@torch.no_grad()
def reduce_dict(input_dict: dict[str, torch.Tensor], average: bool = True) -> dict[str, torch.Tensor]:
    """Sum or average scalar tensors over the ranks; only rank 0 gets the result."""
    if get_world_size() < 2:
        return input_dict
    names = sorted(input_dict)  # the same order on every rank
    values = torch.stack([input_dict[name] for name in names])
    dist.reduce(values, dst=0)
    if is_main_process() and average:
        values /= get_world_size()
    return dict(zip(names, values, strict=True))
