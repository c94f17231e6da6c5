"""A model in several processes, each with its share of a batch."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.utils import comm


def parallel(model: nn.Module) -> nn.Module:
    """The model as it trains among the processes of the group, on GPUs or on the CPU."""
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    return DistributedDataParallel(
        model, device_ids=[torch.cuda.current_device()] if on_gpu else None, broadcast_buffers=False
    )


def share_buffers(model: nn.Module) -> None:
    """Give every process the buffers of the first, which are those that it saves.

    Batch norm counts statistics of its own in each of them. (To broadcast them in every step would have evaluations
    wait for each other, too.)
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
