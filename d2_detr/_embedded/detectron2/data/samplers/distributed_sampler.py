"""Samplers that divide a stream of indices among the ranks; `ToIterableDataset` divides it among dataloader workers.

For training it is endless and, by its seed, the same everywhere: rank r of W takes every W-th index from the r-th on.
"""

import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from detectron2.utils import comm

__all__ = ["InferenceSampler", "RandomSubsetTrainingSampler", "RepeatFactorTrainingSampler", "TrainingSampler"]

logger = logging.getLogger(__name__)


def _shared_seed(seed: int | None) -> int:
    """The seed, or a random one that all ranks agree on."""
    return comm.shared_random_seed() if seed is None else int(seed)


class _EndlessSampler(Sampler):
    """The indices that a subclass gives for an epoch, epoch after epoch, with `shuffle` in ever new orders."""

    def __init__(self, shuffle: bool, seed: int | None):
        self._shuffle = shuffle
        self._seed = _shared_seed(seed)
        self._rank, self._world_size = comm.get_rank(), comm.get_world_size()  # a dataloader worker cannot ask

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        raise NotImplementedError

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed)
        while True:
            indices = self._epoch(generator)
            if self._shuffle:
                indices = indices[torch.randperm(len(indices), generator=generator)]
            yield from indices.tolist()

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self._infinite_indices(), self._rank, None, self._world_size)


class TrainingSampler(_EndlessSampler):
    """All of `range(size)` in every epoch."""

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None):
        if not isinstance(size, int):
            raise TypeError(f"TrainingSampler needs an int as size, got {size!r:.80}")
        if size <= 0:
            raise ValueError(f"TrainingSampler needs a positive size, got {size}")
        super().__init__(shuffle, seed)
        self._indices = torch.arange(size)

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        return self._indices


class RandomSubsetTrainingSampler(TrainingSampler):
    """A random share of `range(size)`, the same in every epoch: shows what more data brings."""

    def __init__(
        self,
        size: int,
        subset_ratio: float,
        shuffle: bool = True,
        seed_shuffle: int | None = None,
        seed_subset: int | None = None,
    ):
        super().__init__(size, shuffle, seed_shuffle)
        assert 0 < subset_ratio <= 1, f"subset_ratio lies in (0, 1], got {subset_ratio}"
        assert int(size * subset_ratio) > 0, f"{subset_ratio} of {size} elements is less than one"
        order = torch.randperm(size, generator=torch.Generator().manual_seed(_shared_seed(seed_subset)))
        self._indices = order[: int(size * subset_ratio)]
        logger.info(f"Sampling from a random subset: {len(self._indices)} of {size}")


class RepeatFactorTrainingSampler(_EndlessSampler):
    """Index i `repeat_factors[i]` times in every epoch, a fraction being rounded at random."""

    def __init__(self, repeat_factors: torch.Tensor, *, shuffle: bool = True, seed: int | None = None):
        super().__init__(shuffle, seed)
        self._whole = repeat_factors.trunc()
        self._fraction = repeat_factors - self._whole

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: list[dict], repeat_thresh: float, sqrt: bool = True
    ) -> torch.Tensor:
        """(N,) float32: the factor of an image is the largest of those of its categories, and at least 1.

        A category that the share f of the images shows has the factor `sqrt(repeat_thresh / f)`, or, without `sqrt`,
        the quotient itself (Gupta et al., LVIS, 2019, appendix B.2).
        """
        categories_per_image = [{ann["category_id"] for ann in d["annotations"]} for d in dataset_dicts]
        count = Counter(itertools.chain.from_iterable(categories_per_image))
        ratio = {category: repeat_thresh / (n / len(dataset_dicts)) for category, n in count.items()}
        factor = {category: max(1.0, math.sqrt(r) if sqrt else r) for category, r in ratio.items()}
        logger.info(f"Repeat factors of the categories: {dict(sorted(factor.items()))}")
        return torch.tensor([max(map(factor.get, ids), default=1.0) for ids in categories_per_image])

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        round_up = torch.rand(len(self._fraction), generator=generator) < self._fraction
        return torch.arange(len(round_up)).repeat_interleave((self._whole + round_up).long())


class InferenceSampler(Sampler):
    """Every index once over all ranks, in contiguous shares whose sizes differ by one at most."""

    def __init__(self, size: int):
        assert size > 0, f"InferenceSampler needs a positive size, got {size}"
        self._local_indices = self._get_local_indices(size, comm.get_world_size(), comm.get_rank())

    @staticmethod
    def _get_local_indices(total_size: int, world_size: int, rank: int) -> range:
        share, rest = divmod(total_size, world_size)
        begin = rank * share + min(rank, rest)
        return range(begin, begin + share + (rank < rest))

    def __iter__(self) -> Iterator[int]:
        return iter(self._local_indices)

    def __len__(self) -> int:
        return len(self._local_indices)
