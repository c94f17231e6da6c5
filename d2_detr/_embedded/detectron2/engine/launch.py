"""Start the processes of a job, one per GPU, and join them in a process group."""

import logging
import socket
from collections.abc import Callable
from datetime import timedelta

import torch
from torch import distributed, multiprocessing

from detectron2.utils import comm

__all__ = ["DEFAULT_TIMEOUT", "launch"]

DEFAULT_TIMEOUT = timedelta(minutes=30)


def launch(
    main_func: Callable,
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Call `main_func(*args)` in each of the job's processes: here, or in `num_gpus_per_machine` spawned ones.

    To be called on each machine, with its own `machine_rank` and the same `dist_url` ("auto" for a free port, if
    there is one machine only). Without CUDA the processes share the CPU.
    """
    world_size = num_machines * num_gpus_per_machine
    if world_size == 1:
        main_func(*args)
        return
    if dist_url == "auto":
        if num_machines > 1:
            raise ValueError("dist_url='auto' finds a port on one machine only; several need tcp://HOST:PORT")
        dist_url = f"tcp://127.0.0.1:{_find_free_port()}"
    first_rank = machine_rank * num_gpus_per_machine
    worker_args = (main_func, args, num_gpus_per_machine, first_rank, world_size, dist_url, timeout)
    multiprocessing.start_processes(_worker, worker_args, num_gpus_per_machine, daemon=False)


def _worker(local_rank, main_func, args, num_local, first_rank, world_size, dist_url, timeout) -> None:
    cuda = torch.cuda.is_available()
    if cuda and num_local > torch.cuda.device_count():
        raise ValueError(f"{num_local} processes need as many GPUs, this machine has {torch.cuda.device_count()}")
    backend = "nccl" if cuda else "gloo"
    try:
        distributed.init_process_group(backend, dist_url, timeout, world_size, first_rank + local_rank)
    except Exception:
        logging.getLogger(__name__).error(f"No process group at {dist_url}")
        raise
    comm.create_local_process_group(num_local)
    if cuda:
        torch.cuda.set_device(local_rank)
    comm.synchronize()
    main_func(*args)


def _find_free_port() -> int:
    with socket.socket() as s:
        s.bind(("", 0))
        return s.getsockname()[1]
