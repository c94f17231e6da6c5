"""Loaders of training and test images.

A worker process can pass on an exception only as the text of its traceback. An error of the mapper is therefore
returned as its result, and raised by the process that uses the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.structures.dataset import Dataset
from d2_detr.structures.records import Record
from d2_detr.utils.errors import InputError
from d2_detr.utils.processes import num_cores

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader

Mapper = Callable[[Record], Record]


def build_train_loader(cfg: CfgNode, records: list[Record], mapper: Mapper) -> _RaisingLoader:
    """Build an endless loader of training batches.

    Iterating raises the InputError or OSError of an image.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = _num_workers(cfg)
    return _RaisingLoader(build_detection_train_loader(cfg, mapper=_ErrorReturningMapper(mapper), dataset=records))


def build_test_loader(cfg: CfgNode, dataset: Dataset) -> Any:  # with the interface of a DataLoader
    """Build the loader of a dataset, with the ground truth that the losses need; see build_train_loader for errors."""
    mapper = _ErrorReturningMapper(DetrDatasetMapper(cfg, is_train=False, with_instances=True))
    return _RaisingLoader(build_detection_test_loader(dataset.records, mapper=mapper, num_workers=_num_workers(cfg)))


def _num_workers(cfg: CfgNode) -> int:
    """Return DATALOADER.NUM_WORKERS, at most one for each core: more of them only wait."""
    return min(cfg.DATALOADER.NUM_WORKERS, num_cores())


class _ErrorReturningMapper:
    def __init__(self, mapper: Mapper):
        self._mapper = mapper

    def __call__(self, record: Record) -> Record:
        try:
            return self._mapper(record)
        except (InputError, OSError) as error:
            size = {side: record.get(side, 0) for side in ("width", "height")}  # by which batches are grouped
            return {"error": error, **size}


class _RaisingLoader:
    def __init__(self, loader: Any):
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[Record]]:
        for batch in self._loader:
            for inputs in batch:
                if "error" in inputs:
                    raise inputs["error"]
            yield batch
