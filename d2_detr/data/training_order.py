"""The order of the training images: which of them are in the batch of each iteration."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from d2_detr.data.annotations import annotated_wh, record_annotations
from d2_detr.data.images import image_size
from d2_detr.structures.records import Record

from detectron2.config import CfgNode
from detectron2.utils import comm

logger = logging.getLogger(__name__)


class Sample(NamedTuple):
    """One use of a training image. It fixes the random numbers of the augmentation."""

    seed: int
    epoch: int
    image: int  # its index in the dataset
    repeat: int  # earlier uses in this epoch


class TrainingOrder(Iterator[list[Sample]]):
    """Endless batches of samples, of which every process gets its part.

    An epoch is a permutation of the images, that of Detectron2's TrainingSampler with the same seed. Batches have
    either wide images or others, so that they need little padding; an image waits until its batch is complete. All
    processes follow the same global batches, so that neither their number nor that of workers changes the order. The
    state of the order is small, and independent of how far a loader has read ahead.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        seed: int,
        is_wide: Callable[[int], bool] | None = None,
        repeat_factors: Tensor | None = None,
    ):
        """Begin with the first batch.

        Args:
            num_images: images in an epoch.
            batch_size: images in a batch, over all processes.
            seed: of the permutations and the augmentations.
            is_wide: whether an image is wider than high; None mixes all shapes.
            repeat_factors: (num_images,), how often each image is in an epoch on average, at least 1; None for once.
        """
        self._num_images = num_images
        self._batch_size = batch_size
        self._is_wide = is_wide
        self._repeat_factors = repeat_factors
        self._rank, self._world_size = comm.get_rank(), comm.get_world_size()
        self._waiting: tuple[list[Sample], list[Sample]] = ([], [])  # of each shape
        self._begin(seed, epoch=0)

    def __next__(self) -> list[Sample]:
        """Return the part of this process of the next batch."""
        while True:
            for waiting in self._waiting:
                if len(waiting) >= self._batch_size:
                    batch, waiting[:] = waiting[: self._batch_size], waiting[self._batch_size :]
                    return batch[self._rank :: self._world_size]
            sample = self._next_sample()
            self._waiting[self._is_wide is not None and self._is_wide(sample.image)].append(sample)

    def copy(self) -> TrainingOrder:
        """Return an order that continues from here by itself."""
        other = TrainingOrder(
            self._num_images, self._batch_size, seed=self._seed, is_wide=self._is_wide,
            repeat_factors=self._repeat_factors,
        )  # fmt: skip
        other.load_state_dict(self.state_dict())
        return other

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs to continue the order."""
        return {
            "num_images": self._num_images,
            "seed": self._seed,
            "epoch": self._epoch,
            "position": self._position,
            "waiting": [[tuple(sample) for sample in waiting] for waiting in self._waiting],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint.

        With another number of images, the epoch begins anew.
        """
        self._begin(state["seed"], state["epoch"])
        if state["num_images"] == self._num_images:
            self._position = state["position"]
            self._uses.update(self._indices[: self._position])
            first, second = ([Sample(*sample) for sample in waiting] for waiting in state["waiting"])
            self._waiting = first, second
        else:
            logger.warning(
                "There are %d training images now, and %d when the checkpoint was saved: this epoch begins anew",
                self._num_images, state["num_images"],
            )  # fmt: skip

    def _begin(self, seed: int, epoch: int) -> None:
        self._seed, self._epoch, self._position = seed, -1, 0
        self._generator = torch.Generator().manual_seed(seed)
        while self._epoch < epoch:
            self._begin_epoch()

    def _begin_epoch(self) -> None:
        indices = torch.arange(self._num_images)
        if self._repeat_factors is not None:
            chances = torch.rand(self._num_images, generator=self._generator)
            whole = self._repeat_factors.floor()
            indices = indices.repeat_interleave((whole + (chances < self._repeat_factors - whole)).long())
        self._indices = indices[torch.randperm(len(indices), generator=self._generator)].tolist()
        self._epoch, self._position, self._uses = self._epoch + 1, 0, Counter[int]()

    def _next_sample(self) -> Sample:
        if self._position == len(self._indices):
            self._begin_epoch()
        image = self._indices[self._position]
        sample = Sample(self._seed, self._epoch, image, repeat=self._uses[image])
        self._position += 1
        self._uses[image] += 1
        return sample


def build_order(cfg: CfgNode, records: Sequence[Record], seed: int) -> TrainingOrder:
    """Build the order that DATALOADER describes."""
    loader = cfg.DATALOADER
    is_repeated = loader.SAMPLER_TRAIN == "RepeatFactorTrainingSampler"
    return TrainingOrder(
        len(records),
        cfg.SOLVER.IMS_PER_BATCH,
        seed=seed,
        is_wide=_Shapes(records) if loader.ASPECT_RATIO_GROUPING else None,
        repeat_factors=repeat_factors(records, loader.REPEAT_THRESHOLD, loader.REPEAT_SQRT) if is_repeated else None,
    )


def repeat_factors(records: Iterable[Record], threshold: float, sqrt: bool = True) -> Tensor:
    """Return how often each image is to be used in an epoch, so that rare classes are seen more often.

    A class that is in a fraction f of the images has the factor max(1, threshold / f), or the square root of it; an
    image has the largest factor of its classes (Gupta et al. 2019, LVIS, appendix B.2 of version 2).
    """
    classes = [{annotation["category_id"] for annotation in record_annotations(record)} for record in records]
    counts = Counter(category for present in classes for category in present)
    ratios = {category: threshold * len(classes) / count for category, count in counts.items()}
    factors = {category: max(1.0, math.sqrt(ratio) if sqrt else ratio) for category, ratio in ratios.items()}
    return torch.tensor([max((factors[category] for category in present), default=1.0) for present in classes])


class _Shapes:
    """Tells whether an image is wider than high, and remembers it: decoding a record takes time."""

    def __init__(self, records: Sequence[Record]):
        self._records = records
        self._known: dict[int, bool] = {}

    def __call__(self, index: int) -> bool:
        if index not in self._known:
            record = self._records[index]
            width, height = annotated_wh(record) or image_size(record["file_name"])
            self._known[index] = width > height
        return self._known[index]
