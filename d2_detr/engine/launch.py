"""One process for each GPU (or, on the CPU, for each that is asked for), on one machine or several."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from d2_detr.errors import InputError

from detectron2.utils import comm

TIMEOUT = timedelta(minutes=30)


def launch(
    main: Callable[..., object],
    *,
    num_processes: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "",
    device: str = "cuda",
    args: tuple = (),
) -> object:
    """Call `main(*args)` in every process of the group; with one process in all, right here.

    Detectron2's own launcher takes NCCL wherever CUDA exists; this one follows `device`, so that a machine with GPUs
    can train on its CPU as well.

    Args:
        num_processes: processes on this machine, one for each GPU.
        dist_url: where the processes find each other, as tcp://host:port of machine 0.
    """
    world_size = num_processes * num_machines
    if world_size == 1:
        return main(*args)
    if device == "cuda" and num_processes > torch.cuda.device_count():
        raise InputError(f"--num-gpus {num_processes}, but this machine has {torch.cuda.device_count()}")
    group = (world_size, machine_rank * num_processes, num_processes, dist_url, device)
    return mp.spawn(_worker, nprocs=num_processes, args=(group, main, args))


def _worker(local_rank: int, group: tuple[int, int, int, str, str], main: Callable[..., object], args: tuple) -> None:
    world_size, first_rank, num_processes, dist_url, device = group
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=dist_url,
        world_size=world_size,
        rank=first_rank + local_rank,
        timeout=TIMEOUT,
    )
    try:
        comm.create_local_process_group(num_processes)
        main(*args)
    finally:
        dist.destroy_process_group()
