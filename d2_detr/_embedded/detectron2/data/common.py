"""Datasets that hold, map, order and group elements."""

import logging
import pickle
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

from detectron2._missing import missing

__all__ = ["DatasetFromList", "MapDataset", "ToIterableDataset"]

logger = logging.getLogger(__name__)


class MapDataset(Dataset):
    """`map_func` over the elements of a dataset; a random other one takes the place of an element that maps to None."""

    def __init__(self, dataset: Dataset, map_func: Callable[[Any], Any]):
        if isinstance(dataset, IterableDataset):
            raise NotImplementedError(missing("iterable datasets"))
        self._dataset, self._map_func = dataset, map_func
        self._rng = random.Random(42)
        self._usable = set(range(len(dataset)))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, idx: int) -> Any:
        index = int(idx)
        while (mapped := self._map_func(self._dataset[index])) is None:
            self._usable.discard(index)
            if not self._usable:
                raise ValueError("The map function returned None for every element of the dataset")
            logger.warning(f"Element {index} maps to None; a random one takes its place")
            index = self._rng.choice(list(self._usable))
        self._usable.add(index)
        return mapped


class DatasetFromList(Dataset):
    """A list as a dataset. `serialize` stores it: True pickles it, False leaves it, so that only `copy` protects it."""

    def __init__(self, lst: list, copy: bool = True, serialize: bool | Callable[[list], Sequence] = True):
        store = _PickledList if serialize is True else serialize
        self._elements = store(lst) if store else lst
        self._copy = copy and not store

    def __len__(self) -> int:
        return len(self._elements)

    def __getitem__(self, idx: int) -> Any:
        return deepcopy(self._elements[idx]) if self._copy else self._elements[idx]


class _PickledList:
    """A list, its elements pickled into one tensor, the memory of which worker processes share.

    Of Python objects, every worker would soon hold its own copy. Nothing is unpickled that was not pickled here.
    """

    def __init__(self, lst: list):
        pickles = [pickle.dumps(x, protocol=pickle.HIGHEST_PROTOCOL) for x in lst]
        self._ends = np.cumsum([len(p) for p in pickles])
        self._bytes = torch.frombuffer(bytearray().join(pickles), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, idx: int) -> Any:
        start = self._ends[idx - 1] if idx else 0
        return pickle.loads(memoryview(self._bytes[start : self._ends[idx]].numpy()))


class ToIterableDataset(IterableDataset):
    """A map-style dataset in the order of `sampler`, which runs in each dataloader worker.

    With `shard_sampler` they take turns, of `shard_chunk_size` indices each, so that none is read twice.
    """

    def __init__(self, dataset: Dataset, sampler: Sampler, shard_sampler: bool = True, shard_chunk_size: int = 1):
        self.dataset, self.sampler = dataset, sampler
        self.shard_sampler, self.shard_chunk_size = shard_sampler, shard_chunk_size

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info() if self.shard_sampler else None
        for i, index in enumerate(self.sampler):
            if worker is None or i // self.shard_chunk_size % worker.num_workers == worker.id:
                yield self.dataset[index]


class AspectRatioGroupedDataset(IterableDataset):
    """Batches of dicts whose "width" exceeds their "height" in all or in none of them: less padding."""

    def __init__(self, dataset: Iterable[dict], batch_size: int):
        self.dataset, self.batch_size = dataset, batch_size
        self._buckets: tuple[list[dict], list[dict]] = ([], [])  # not wide, wide

    def __iter__(self) -> Iterator[list[dict]]:
        for element in self.dataset:
            bucket = self._buckets[element["width"] > element["height"]]
            bucket.append(element)
            if len(bucket) == self.batch_size:
                batch = bucket.copy()
                bucket.clear()  # before the yield, after which nothing may ever run
                yield batch
