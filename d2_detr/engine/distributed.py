"""One process for each GPU (or, on the CPU, for each that is asked for), on one machine or several."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from d2_detr.utils.errors import InputError, in_traceback

from detectron2.utils import comm

logger = logging.getLogger(__name__)
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
    can train on its CPU as well. Under torchrun this is one process of the group that torchrun started, and the numbers
    are torchrun's. When a process fails the others are ended, and its error is raised here.

    Args:
        num_processes: processes on this machine, one for each GPU.
        dist_url: where the machines find each other, as tcp://host:port of machine 0; one machine needs none.
        device: "cuda" (NCCL) or "cpu" (gloo).
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _under_torchrun(main, device, args)
    _check(num_processes, num_machines, machine_rank, dist_url, device)
    world_size = num_processes * num_machines
    if world_size == 1:
        return main(*args)
    if num_machines == 1:
        dist_url = f"tcp://127.0.0.1:{_free_port()}"  # so that two trainings can share the machine
    group = (world_size, machine_rank * num_processes, num_processes, dist_url, device)
    try:
        return mp.spawn(_join_and_run, nprocs=num_processes, args=(group, main, args))
    except mp.ProcessRaisedException as error:
        if message := in_traceback(str(error)):
            raise InputError(message) from None
        raise


def group_size(num_processes: int) -> int:
    """How many processes there will be: on one machine as many as asked for, under torchrun as many as it started."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else num_processes


def as_many_processes() -> list[str]:
    """The option of a command that starts as many processes as there are now."""
    return ["--num-gpus", str(comm.get_world_size())] if comm.get_world_size() > 1 else []


def _check(num_processes: int, num_machines: int, machine_rank: int, dist_url: str, device: str) -> None:
    if num_processes < 1 or num_machines < 1:
        raise InputError(f"--num-gpus {num_processes} --num-machines {num_machines}: expected 1 or more")
    if not 0 <= machine_rank < num_machines:
        raise InputError(f"--machine-rank {machine_rank} of --num-machines {num_machines}: ranks count from 0")
    if num_machines > 1 and not dist_url.startswith("tcp://"):
        raise InputError(f"--dist-url {dist_url!r}: several machines meet at tcp://HOST:PORT, HOST being machine 0")
    if device == "cuda" and not torch.cuda.device_count():
        raise InputError("MODEL.DEVICE cuda, but torch sees no GPU here; leave the device out, or say cpu")
    if device == "cpu" and num_processes > 1 and not torch.cuda.device_count():
        logger.warning("There is no GPU: %d processes share the CPU of this machine", num_processes)
    if device == "cuda" and num_processes > torch.cuda.device_count():
        raise InputError(
            f"--num-gpus {num_processes}, but this machine has {torch.cuda.device_count()}; MODEL.DEVICE cpu trains in "
            "processes on the CPU"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _under_torchrun(main: Callable[..., object], device: str, args: tuple) -> object:
    world_size, rank, local_rank, on_this_machine = (
        int(os.environ[name]) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    return _join_and_run(local_rank, (world_size, rank - local_rank, on_this_machine, "env://", device), main, args)


def _join_and_run(
    local_rank: int, group: tuple[int, int, int, str, str], main: Callable[..., object], args: tuple
) -> object:
    """Join the group, call `main`, leave it.

    After an error the group is left by ending the process: were it left in order, the others would fail for want of it
    before this process has told why.
    """
    world_size, first_rank, num_processes, dist_url, device = group
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        # More threads than cores wait for each other.
        torch.set_num_threads(max(1, torch.get_num_threads() // num_processes))
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=dist_url,
        world_size=world_size,
        rank=first_rank + local_rank,
        timeout=TIMEOUT,
    )
    comm.create_local_process_group(num_processes)
    result = main(*args)
    comm.synchronize()
    dist.destroy_process_group()
    return result
