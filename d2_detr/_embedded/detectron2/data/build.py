"""Build data loaders from dataset names."""

import itertools
import logging
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset, Sampler

from detectron2._missing import missing
from detectron2.config import CfgNode, configurable
from detectron2.utils.comm import get_world_size
from detectron2.utils.env import seed_all_rng

from .catalog import DatasetCatalog, MetadataCatalog
from .common import AspectRatioGroupedDataset, DatasetFromList, MapDataset, ToIterableDataset
from .detection_utils import check_metadata_consistency
from .samplers import InferenceSampler, TrainingSampler

__all__ = ["build_detection_test_loader", "build_detection_train_loader", "get_detection_dataset_dicts"]
__all__ += ["print_instances_class_histogram"]

logger = logging.getLogger(__name__)

Mapper = Callable[[dict[str, Any]], Any]


def filter_images_with_only_crowd_annotations(dataset_dicts: list[dict]) -> list[dict]:
    """Drop the images that have no annotation, or only crowds."""
    kept = [d for d in dataset_dicts if any(not ann.get("iscrowd", 0) for ann in d["annotations"])]
    logger.info(f"Removed {len(dataset_dicts) - len(kept)} images without usable annotations; {len(kept)} remain")
    return kept


def print_instances_class_histogram(dataset_dicts: list[dict], class_names: Sequence[str]) -> None:
    """Log the number of instances per class, without crowds."""
    counts = [0] * len(class_names)
    for ann in itertools.chain.from_iterable(d["annotations"] for d in dataset_dicts):
        if not ann.get("iscrowd", 0):
            assert 0 <= ann["category_id"] < len(counts), f"{ann['category_id']=}: expected 0..{len(counts) - 1}"
            counts[ann["category_id"]] += 1
    short_names = [name if len(name) <= 13 else f"{name[:11]}.." for name in class_names]
    rows = list(zip(short_names, counts, strict=True)) + ([("total", sum(counts))] if len(counts) > 1 else [])
    table = table_in_columns(rows, ("category", "#instances"), stralign="center")
    logger.info(f"Instances of the {len(counts)} categories:\n{table}")


def table_in_columns(rows: list[tuple], headers: tuple[str, ...], columns: int = 3, **options: Any) -> str:
    """Format rows as up to `columns` tables side by side, in reading order."""
    columns = min(columns, len(rows))
    lines = [list(itertools.chain(*rows[i : i + columns])) for i in range(0, len(rows), columns)]
    return tabulate(lines, headers * columns, tablefmt="pipe", numalign="left", **options)


def get_detection_dataset_dicts(
    names: str | Sequence[str], filter_empty: bool = True, *, check_consistency: bool = True
) -> list[dict]:
    """Load and concatenate datasets; `filter_empty` drops images without annotations."""
    names = [names] if isinstance(names, str) else names
    assert len(names), "Expected at least one dataset name"
    datasets = [DatasetCatalog.get(name) for name in names]
    for name, dicts in zip(names, datasets, strict=True):
        if isinstance(dicts, Dataset):
            raise NotImplementedError(missing(f"datasets other than lists ('{name}')"))
        assert len(dicts), f"Dataset '{name}' is empty"
    dataset_dicts = list(itertools.chain.from_iterable(datasets))
    if "annotations" in dataset_dicts[0]:
        if filter_empty:
            dataset_dicts = filter_images_with_only_crowd_annotations(dataset_dicts)
        if check_consistency and all(hasattr(MetadataCatalog.get(name), "thing_classes") for name in names):
            check_metadata_consistency("thing_classes", names)
            print_instances_class_histogram(dataset_dicts, MetadataCatalog.get(names[0]).thing_classes)
    assert dataset_dicts, f"{', '.join(names)}: no image has an annotation other than crowds"
    return dataset_dicts


def _train_arguments(
    cfg: CfgNode, mapper: Mapper | None = None, *, dataset: Any = None, sampler: Sampler | None = None
) -> dict[str, Any]:
    if dataset is None:
        dataset = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    if sampler is None and cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise NotImplementedError(missing(f"DATALOADER.SAMPLER_TRAIN '{cfg.DATALOADER.SAMPLER_TRAIN}'"))
    return {
        "dataset": dataset,
        "mapper": _required(mapper),
        "sampler": TrainingSampler(len(dataset), seed=cfg.SEED) if sampler is None else sampler,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
    }


@configurable(from_config=_train_arguments)
def build_detection_train_loader(
    dataset: list[dict] | Dataset,
    *,
    mapper: Mapper | None,
    sampler: Sampler | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    **kwargs: Any,
) -> Iterable[list]:
    """Build a loader of endless batches, from `(cfg, mapper=...)` or these arguments.

    `total_batch_size` is the number of images over all processes; `kwargs` are passed on to torch's DataLoader.
    """
    batch_size, rest = divmod(total_batch_size, get_world_size())
    assert batch_size > 0 and rest == 0, f"{total_batch_size=} is no multiple of the {get_world_size()} processes"
    mapped = _map(dataset, mapper)
    sampler = TrainingSampler(len(mapped)) if sampler is None else sampler
    ordered = ToIterableDataset(mapped, sampler, shard_chunk_size=batch_size)
    kwargs |= {"num_workers": num_workers, "worker_init_fn": worker_init_reset_seed}
    if not aspect_ratio_grouping:
        return DataLoader(ordered, batch_size, drop_last=True, collate_fn=trivial_batch_collator, **kwargs)
    return AspectRatioGroupedDataset(DataLoader(ordered, collate_fn=operator.itemgetter(0), **kwargs), batch_size)


def _test_arguments(cfg: CfgNode, dataset_name: str | Sequence[str], mapper: Mapper | None = None) -> dict[str, Any]:
    dataset = get_detection_dataset_dicts(dataset_name, filter_empty=False)
    return {"dataset": dataset, "mapper": _required(mapper), "num_workers": cfg.DATALOADER.NUM_WORKERS}


@configurable(from_config=_test_arguments)
def build_detection_test_loader(
    dataset: list[dict] | Dataset,
    *,
    mapper: Mapper | None,
    sampler: Sampler | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
) -> DataLoader:
    """Build a loader that gives every element once over all processes.

    Call it as `(cfg, dataset_name, mapper=...)` or with these arguments, of which `batch_size` is per process.
    """
    mapped = _map(dataset, mapper)
    sampler = InferenceSampler(len(mapped)) if sampler is None else sampler
    return DataLoader(mapped, batch_size, sampler=sampler, num_workers=num_workers, collate_fn=trivial_batch_collator)


def _required(mapper: Mapper | None) -> Mapper:
    if mapper is None:
        raise NotImplementedError(missing("a default DatasetMapper (pass one as mapper=...)"))
    return mapper


def _map(dataset: list[dict] | Dataset, mapper: Mapper | None) -> Any:
    dataset = DatasetFromList(dataset) if isinstance(dataset, list) else dataset
    return dataset if mapper is None else MapDataset(dataset, mapper)


def trivial_batch_collator(batch: list) -> list:
    """Return the list of elements unchanged."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Seed the random generators of a worker, differently from other workers."""
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)
