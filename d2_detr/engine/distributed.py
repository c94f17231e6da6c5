"""The processes of a run: one per GPU, or any number on the CPU, on one machine or several."""

from __future__ import annotations

import logging
import os
import re
import socket
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from d2_detr.engine.supervision import run_group
from d2_detr.utils.errors import InputError

from detectron2.utils import comm

logger = logging.getLogger(__name__)
TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Group:
    """The processes of a run, as each of them needs to know it."""

    world_size: int
    first_rank: int  # of this machine
    num_processes: int  # on this machine
    init_method: str
    device: str


def launch(
    main: Callable[..., Any],
    *,
    num_processes: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "",
    device: str = "cuda",
    args: tuple[Any, ...] = (),
) -> Any:
    """Call `main(*args)` in every process of the group; a single process is this one.

    Detectron2's launcher uses NCCL wherever CUDA exists; this one follows `device`, so that a machine with GPUs can
    also train on its CPU. Under torchrun, this process joins the group that torchrun started, and its numbers replace
    the arguments. If a process fails, the others end, and its error is raised here.

    Args:
        main: the function to call.
        num_processes: processes on this machine, one per GPU.
        num_machines: number of machines.
        machine_rank: number of this machine, from 0.
        dist_url: where several machines meet: tcp://HOST:PORT of machine 0.
        device: "cuda" (NCCL) or "cpu" (gloo).
        args: arguments of `main`.

    Returns:
        What `main` returns, if there is a single process.

    Raises:
        InputError, Interrupted, ProcessError: the arguments make no sense; or see run_group.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _run_under_torchrun(main, device, args)
    _check(num_processes, num_machines, machine_rank, dist_url, device)
    world_size = num_processes * num_machines
    if world_size == 1:
        return main(*args)
    if num_machines == 1:
        dist_url = f"tcp://127.0.0.1:{_free_port()}"  # not a fixed port: two trainings may share the machine
    group = Group(world_size, machine_rank * num_processes, num_processes, dist_url, device)
    run_group(_join_and_run, [(rank, group, main, args) for rank in range(num_processes)])
    return None


def parallelize(model: nn.Module) -> nn.Module:
    """Wrap a model for the processes of the group, on GPUs or on the CPU."""
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    # Convolutions of size 1, whose two memory formats are the same bytes.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    parallel = DistributedDataParallel(model, device_ids=[torch.cuda.current_device()] if on_gpu else None)
    parallel.broadcast_buffers = False  # not the argument: its name has changed since torch 2.4
    return parallel


def broadcast_buffers(model: nn.Module) -> None:
    """Give every process the buffers of the first one, which saves them.

    Each process has its own batch norm statistics. (Broadcasting them in every step would also make evaluations wait
    for each other.)
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def is_lost_connection(error: Exception) -> bool:
    """Return whether an error says that another process of the group has ended."""
    return (
        comm.get_world_size() > 1
        and isinstance(error, RuntimeError)
        and bool(re.search("gloo|nccl|connection (reset|closed)|broken pipe", str(error), re.IGNORECASE))
    )


def expected_world_size(num_processes: int) -> int:
    """Return how many processes `launch` will have on one machine, or has under torchrun."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else num_processes


def num_gpus_option() -> list[str]:
    """Return the command-line option that starts as many processes as there are now."""
    return ["--num-gpus", str(comm.get_world_size())] if comm.get_world_size() > 1 else []


def _check(num_processes: int, num_machines: int, machine_rank: int, dist_url: str, device: str) -> None:
    num_gpus = torch.cuda.device_count()
    if num_processes < 1 or num_machines < 1:
        raise InputError(f"--num-gpus {num_processes} --num-machines {num_machines}: expected 1 or more")
    if not 0 <= machine_rank < num_machines:
        raise InputError(f"--machine-rank {machine_rank} of --num-machines {num_machines}: ranks count from 0")
    if num_machines > 1 and not dist_url.startswith("tcp://"):
        raise InputError(f"--dist-url {dist_url!r}: expected tcp://HOST:PORT, where HOST is machine 0")
    if device.startswith("cuda") and not num_gpus:
        raise InputError(f"MODEL.DEVICE {device}, but torch finds no GPU here; leave the device out, or set it to cpu")
    if num_processes > 1 and ":" in device:
        raise InputError(f"MODEL.DEVICE {device} with --num-gpus {num_processes}: every process has its GPU; set cuda")
    if device == "cuda" and num_processes > num_gpus:
        raise InputError(
            f"--num-gpus {num_processes}, but this machine has {num_gpus}; MODEL.DEVICE cpu starts processes on the CPU"
        )
    if device == "cpu" and num_processes > 1 and not num_gpus:
        logger.warning("There is no GPU: %d processes share the CPU of this machine", num_processes)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _run_under_torchrun(main: Callable[..., Any], device: str, args: tuple[Any, ...]) -> Any:
    world_size, rank, local_rank, num_local = (
        int(os.environ[name]) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    return _join_and_run(local_rank, Group(world_size, rank - local_rank, num_local, "env://", device), main, args)


def _join_and_run(local_rank: int, group: Group, main: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Join the group, call `main`, leave the group.

    A process that fails exits without destroying the group, so that its error is known before the others lose the
    connection.
    """
    if group.device == "cuda":
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:  # more threads than cores would wait for each other
        torch.set_num_threads(max(1, torch.get_num_threads() // group.num_processes))
    dist.init_process_group(
        "nccl" if group.device == "cuda" else "gloo",
        init_method=group.init_method,
        world_size=group.world_size,
        rank=group.first_rank + local_rank,
        timeout=TIMEOUT,
    )
    comm.create_local_process_group(group.num_processes)
    result = main(*args)
    comm.synchronize()
    dist.destroy_process_group()
    return result
