"""Samplers that divide indices among the ranks."""

import itertools
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from detectron2._missing import missing_attribute
from detectron2.utils import comm

__all__ = ["InferenceSampler", "TrainingSampler"]
__getattr__ = missing_attribute(__name__)


class TrainingSampler(Sampler):
    """Endless permutations of `range(size)` or, without `shuffle`, that range itself.

    All ranks generate the same indices, from the same seed; rank r of W takes every W-th, starting with the r-th.
    """

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None):
        if size <= 0:
            raise ValueError(f"TrainingSampler: size must be positive, got {size}")
        self._size, self._shuffle = size, shuffle
        self._seed = comm.shared_random_seed() if seed is None else int(seed)
        self._rank, self._world_size = comm.get_rank(), comm.get_world_size()  # unknown in dataloader workers

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self._infinite_indices(), self._rank, None, self._world_size)

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed)
        while True:
            order = torch.randperm(self._size, generator=generator) if self._shuffle else torch.arange(self._size)
            yield from order.tolist()


class InferenceSampler(Sampler):
    """Divide `range(size)` into a contiguous range per rank, as evenly as possible."""

    def __init__(self, size: int):
        self._local_indices = torch.arange(size).tensor_split(comm.get_world_size())[comm.get_rank()].tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self._local_indices)

    def __len__(self) -> int:
        return len(self._local_indices)
