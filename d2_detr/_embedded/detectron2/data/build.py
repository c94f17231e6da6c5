"""From dataset names to data loaders."""

import itertools
import logging
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from tabulate import tabulate
from termcolor import colored
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Sampler

from detectron2._missing import missing, missing_attribute
from detectron2.config import CfgNode, configurable
from detectron2.utils.comm import get_world_size
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import log_first_n

from .catalog import DatasetCatalog, MetadataCatalog
from .common import AspectRatioGroupedDataset, DatasetFromList, MapDataset, ToIterableDataset
from .detection_utils import check_metadata_consistency
from .samplers import InferenceSampler, RandomSubsetTrainingSampler, RepeatFactorTrainingSampler, TrainingSampler

__all__ = [
    "build_batch_data_loader",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "get_detection_dataset_dicts",
    "print_instances_class_histogram",
]

logger = logging.getLogger(__name__)

Mapper = Callable[[dict[str, Any]], Any]
Collate = Callable[[list], Any]


def filter_images_with_only_crowd_annotations(dataset_dicts: list[dict]) -> list[dict]:
    kept = [d for d in dataset_dicts if any(not ann.get("iscrowd", 0) for ann in d["annotations"])]
    logger.info(f"Removed {len(dataset_dicts) - len(kept)} images without usable annotations; {len(kept)} are left")
    return kept


def print_instances_class_histogram(dataset_dicts: list[dict], class_names: Sequence[str]) -> None:
    """Log the number of instances of each class, crowds not counted."""
    counts = [0] * len(class_names)
    for ann in itertools.chain.from_iterable(d["annotations"] for d in dataset_dicts):
        if not ann.get("iscrowd", 0):
            assert 0 <= ann["category_id"] < len(counts), f"Got {ann['category_id']=}, but {len(counts)} classes"
            counts[ann["category_id"]] += 1
    short_names = [name if len(name) <= 13 else f"{name[:11]}.." for name in class_names]
    rows = list(zip(short_names, counts, strict=True)) + ([("total", sum(counts))] if len(counts) > 1 else [])
    table = colored(table_in_columns(rows, ("category", "#instances"), stralign="center"), "cyan")
    log_first_n(logging.INFO, f"Instances of the {len(counts)} categories:\n{table}", key="message")


def table_in_columns(rows: list[tuple], headers: tuple[str, ...], columns: int = 3, **options: Any) -> str:
    """A table folded into up to `columns` tables side by side, read line by line."""
    columns = min(columns, len(rows))
    lines = [list(itertools.chain(*rows[i : i + columns])) for i in range(0, len(rows), columns)]
    return tabulate(lines, headers * columns, tablefmt="pipe", numalign="left", **options)


def get_detection_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
    check_consistency: bool = True,
) -> list[dict] | Dataset:
    """Load datasets by name into one list; `filter_empty` leaves out images without annotations or with crowds only.

    A dataset that is registered as a torch Dataset comes as it is.
    """
    if min_keypoints > 0 or proposal_files is not None:
        raise NotImplementedError(missing("keypoints and precomputed proposals"))
    names = [names] if isinstance(names, str) else names
    assert len(names), "No dataset is named"
    datasets = [DatasetCatalog.get(name) for name in names]
    if isinstance(datasets[0], Dataset):
        return datasets[0] if len(datasets) == 1 else ConcatDataset(datasets)
    for name, dicts in zip(names, datasets, strict=True):
        assert len(dicts), f"Dataset '{name}' is empty"
    dataset_dicts = list(itertools.chain.from_iterable(datasets))
    if "annotations" in dataset_dicts[0]:
        if filter_empty:
            dataset_dicts = filter_images_with_only_crowd_annotations(dataset_dicts)
        if check_consistency and all(hasattr(MetadataCatalog.get(name), "thing_classes") for name in names):
            check_metadata_consistency("thing_classes", names)
            print_instances_class_histogram(dataset_dicts, MetadataCatalog.get(names[0]).thing_classes)
    assert dataset_dicts, f"No image of {', '.join(names)} has a usable annotation"
    return dataset_dicts


def build_batch_data_loader(
    dataset: Dataset,
    sampler: Sampler | None,
    total_batch_size: int,
    *,
    aspect_ratio_grouping: bool = False,
    num_workers: int = 0,
    collate_fn: Collate | None = None,
    drop_last: bool = True,
    **kwargs: Any,
) -> Iterable[Any]:
    """Batches, as lists unless `collate_fn` makes something else of them; `kwargs` are those of torch's DataLoader.

    `total_batch_size` counts the images of all processes. Only an iterable dataset has no sampler.
    """
    batch_size, rest = divmod(total_batch_size, get_world_size())
    assert batch_size > 0 and rest == 0, f"{total_batch_size=} cannot be shared by {get_world_size()} processes"
    if isinstance(dataset, IterableDataset):
        assert sampler is None, "An iterable dataset has no sampler"
    else:
        dataset = ToIterableDataset(dataset, sampler, shard_chunk_size=batch_size)
    kwargs |= {"num_workers": num_workers, "worker_init_fn": worker_init_reset_seed}
    if not aspect_ratio_grouping:
        collate_fn = collate_fn or trivial_batch_collator
        return DataLoader(dataset, batch_size, drop_last=drop_last, collate_fn=collate_fn, **kwargs)
    assert drop_last, "Grouping by aspect ratio drops incomplete batches"
    elements = DataLoader(dataset, collate_fn=operator.itemgetter(0), **kwargs)
    batches = AspectRatioGroupedDataset(elements, batch_size)
    return batches if collate_fn is None else MapDataset(batches, collate_fn)


def _train_loader_from_config(
    cfg: CfgNode, mapper: Mapper | None = None, *, dataset: Any = None, sampler: Sampler | None = None
) -> dict[str, Any]:
    _check_mapper(mapper)
    if dataset is None:
        dataset = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    if sampler is None and not isinstance(dataset, IterableDataset):
        sampler = _build_training_sampler(cfg, dataset)
    configured = {
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
    }
    return configured | {"dataset": dataset, "sampler": sampler, "mapper": mapper}


def _build_training_sampler(cfg: CfgNode, dataset: Any) -> Sampler:
    match name := cfg.DATALOADER.SAMPLER_TRAIN:
        case "TrainingSampler":
            return TrainingSampler(len(dataset), seed=cfg.SEED)
        case "RepeatFactorTrainingSampler":
            factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
                dataset, cfg.DATALOADER.REPEAT_THRESHOLD, sqrt=cfg.DATALOADER.REPEAT_SQRT
            )
            return RepeatFactorTrainingSampler(factors, seed=cfg.SEED)
        case "RandomSubsetTrainingSampler":
            return RandomSubsetTrainingSampler(len(dataset), cfg.DATALOADER.RANDOM_SUBSET_RATIO)
        case "WeightedTrainingSampler" | "WeightedCategoryTrainingSampler":
            raise NotImplementedError(missing(name))
    raise ValueError(f"Unknown DATALOADER.SAMPLER_TRAIN '{name}'")


@configurable(from_config=_train_loader_from_config)
def build_detection_train_loader(
    dataset: list[dict] | Dataset,
    *,
    mapper: Mapper | None,
    sampler: Sampler | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    **kwargs: Any,
) -> Iterable[Any]:
    """Endless batches of what `mapper` makes of dataset dicts: `(cfg, mapper=...)`, or a dataset and the arguments.

    The default sampler is a TrainingSampler; `kwargs` are those of `build_batch_data_loader`.
    """
    dataset = _map(dataset, mapper)
    if sampler is None and not isinstance(dataset, IterableDataset):
        sampler = TrainingSampler(len(dataset))
    kwargs["aspect_ratio_grouping"] = aspect_ratio_grouping
    return build_batch_data_loader(dataset, sampler, total_batch_size, **kwargs)


def _test_loader_from_config(
    cfg: CfgNode, dataset_name: str | Sequence[str], mapper: Mapper | None = None
) -> dict[str, Any]:
    _check_mapper(mapper)
    dataset = get_detection_dataset_dicts(dataset_name, filter_empty=False)
    return {"dataset": dataset, "mapper": mapper, "num_workers": cfg.DATALOADER.NUM_WORKERS}


@configurable(from_config=_test_loader_from_config)
def build_detection_test_loader(
    dataset: list[dict] | Dataset,
    *,
    mapper: Mapper | None,
    sampler: Sampler | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Collate | None = None,
) -> DataLoader:
    """Every element once over all processes: `(cfg, dataset_name, mapper=...)`, or a dataset and the arguments.

    `batch_size` is that of one process; the default sampler is an InferenceSampler.
    """
    dataset = _map(dataset, mapper)
    if sampler is None and not isinstance(dataset, IterableDataset):
        sampler = InferenceSampler(len(dataset))
    collate_fn = collate_fn or trivial_batch_collator
    return DataLoader(dataset, batch_size, sampler=sampler, num_workers=num_workers, collate_fn=collate_fn)


def _check_mapper(mapper: Mapper | None) -> None:
    if mapper is None:
        raise NotImplementedError(missing("a default DatasetMapper (pass one as mapper=...)"))


def _map(dataset: list[dict] | Dataset, mapper: Mapper | None) -> Dataset:
    if isinstance(dataset, list):
        dataset = DatasetFromList(dataset, copy=False)
    return dataset if mapper is None else MapDataset(dataset, mapper)


def trivial_batch_collator(batch: list) -> list:
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)


__getattr__ = missing_attribute(__name__)
