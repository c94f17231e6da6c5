"""Datasets that store, map, order and group elements."""

import logging
import pickle
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from detectron2._missing import missing

__all__ = ["DatasetFromList", "MapDataset", "ToIterableDataset"]

logger = logging.getLogger(__name__)


class MapDataset(Dataset):
    """Map elements of a dataset; one that maps to None is replaced by a random one."""

    def __init__(self, dataset: Any, map_func: Callable[[Any], Any]):
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
            logger.warning(f"Element {index} maps to None; a random one replaces it")
            index = self._rng.choice(list(self._usable))
        self._usable.add(index)
        return mapped


class DatasetFromList(Dataset):
    """A list as a dataset: pickled, stored by a function `serialize`, or copied."""

    def __init__(self, lst: list, copy: bool = True, serialize: bool | Callable[[list], Sequence] = True):
        store = _PickledList if serialize is True else serialize
        self._elements = store(lst) if store else lst
        self._copy = copy and not store

    def __len__(self) -> int:
        return len(self._elements)

    def __getitem__(self, idx: int) -> Any:
        return deepcopy(self._elements[idx]) if self._copy else self._elements[idx]


class _PickledList(Sequence):
    """A list pickled into one tensor, which forked workers share.

    Reference counts would make each worker copy the memory of Python objects. Only data pickled here are unpickled.
    """

    def __init__(self, lst: list):
        pickles = [pickle.dumps(x, protocol=pickle.HIGHEST_PROTOCOL) for x in lst]
        self._ends = np.cumsum([len(p) for p in pickles])
        self._bytes = torch.frombuffer(bytearray().join(pickles), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, idx: Any) -> Any:
        start = self._ends[idx - 1] if idx else 0
        return pickle.loads(self._bytes[start : self._ends[idx]].numpy().data)  # nosec B301  # pickled above


class ToIterableDataset(IterableDataset):
    """A map-style dataset in the order of a sampler, which runs in each worker.

    With `shard_sampler` the workers take turns of `shard_chunk_size` indices, so that each index is used once.
    """

    def __init__(self, dataset: Any, sampler: Any, shard_sampler: bool = True, shard_chunk_size: int = 1):
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
    """Batches of dicts of which all or none are wide ("width" > "height")."""

    def __init__(self, dataset: Iterable[dict], batch_size: int):
        self.dataset, self.batch_size = dataset, batch_size
        self._buckets: tuple[list[dict], list[dict]] = ([], [])  # not wide, wide

    def __iter__(self) -> Iterator[list[dict]]:
        for element in self.dataset:
            bucket = self._buckets[element["width"] > element["height"]]
            bucket.append(element)
            if len(bucket) == self.batch_size:
                batch = bucket.copy()
                bucket.clear()  # before the yield: the generator may never be resumed
                yield batch
