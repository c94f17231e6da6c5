"""Samplers that divide a stream of indices among the ranks; `ToIterableDataset` divides it among dataloader workers."""

import itertools
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from detectron2.utils import comm

__all__ = ["InferenceSampler", "TrainingSampler"]


class TrainingSampler(Sampler):
    """`range(size)` without end, with `shuffle` in ever new orders.

    By its seed the stream is the same everywhere: rank r of W takes every W-th index from the r-th on.
    """

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None):
        if size <= 0:
            raise ValueError(f"TrainingSampler needs a positive size, got {size}")
        self._size, self._shuffle = size, shuffle
        self._seed = comm.shared_random_seed() if seed is None else int(seed)
        self._rank, self._world_size = comm.get_rank(), comm.get_world_size()  # a dataloader worker cannot ask

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self._infinite_indices(), self._rank, None, self._world_size)

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed)
        while True:
            order = torch.randperm(self._size, generator=generator) if self._shuffle else torch.arange(self._size)
            yield from order.tolist()


class InferenceSampler(Sampler):
    """Every index once over all ranks, in contiguous shares whose sizes differ by one at most."""

    def __init__(self, size: int):
        share, rest = divmod(size, comm.get_world_size())
        rank = comm.get_rank()
        begin = rank * share + min(rank, rest)
        self._local_indices = range(begin, begin + share + (rank < rest))

    def __iter__(self) -> Iterator[int]:
        return iter(self._local_indices)

    def __len__(self) -> int:
        return len(self._local_indices)
