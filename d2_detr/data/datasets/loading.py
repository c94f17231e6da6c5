"""Find, register and read the datasets of a config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from d2_detr.config.keys import CUSTOM_TEST, CUSTOM_TRAIN, CUSTOM_VAL, PANOPTIC_SUFFIX
from d2_detr.data.datasets import balloon, builtin_panoptic
from d2_detr.data.datasets.catalog import label_map_from_metadata
from d2_detr.data.datasets.custom import CustomFolder
from d2_detr.structures.dataset import Dataset, Datasets
from d2_detr.structures.records import Records
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.utils import comm

T = TypeVar("T")

CUSTOM = [name + suffix for name in (CUSTOM_TRAIN, CUSTOM_VAL, CUSTOM_TEST) for suffix in ("", PANOPTIC_SUFFIX)]


def load_datasets(cfg: CfgNode, *, evaluation_only: bool = False) -> Datasets:
    """Read the datasets of DATASETS.TEST and, unless it is an evaluation, of DATASETS.TRAIN.

    All processes of a run call this together. DATALOADER.FILTER_EMPTY_ANNOTATIONS leaves out training images without
    objects, as in Detectron2.

    Raises:
        FileNotFoundError, InputError: a dataset is unknown, or its files are missing or wrong.
    """
    datasets = _one_process_first(lambda: _load_all(cfg, evaluation_only=evaluation_only))
    if cfg.MODEL.DETR.PANOPTIC_ON:
        _check_panoptic(datasets)
    return datasets


def load_dataset(name: str, root: str | Path = "", *, strict: bool = False, evaluated: bool = True) -> Dataset:
    """Read one dataset.

    Args:
        name: of Detectron2's catalog, of the balloon datasets, or custom_train, custom_val, custom_test.
        root: folder of the custom dataset.
        strict: annotations that cannot be trained on are an error; else they are dropped.
        evaluated: also prepare what AP is measured against.

    Raises:
        FileNotFoundError, InputError: the dataset is unknown, or its files are missing or wrong.
    """
    return _load(name, CustomFolder(root, strict=strict) if root else None, evaluated=evaluated)


def register_dataset(name: str) -> None:
    """Register one of this project's datasets (balloons, COCO's panoptic ones) unless the name is taken.

    Registration is lazy because another package may own the name.

    Raises:
        InputError: no such dataset.
    """
    if name in builtin_panoptic.DATASETS:
        builtin_panoptic.register(name)
    elif name in DatasetCatalog:
        return
    elif name in CUSTOM:
        raise InputError(f"dataset {name!r}: give its folder with --data FOLDER or the config key DATASETS.CUSTOM")
    elif name in balloon.DATASETS:
        balloon.register(name)
    else:
        known = sorted({*DatasetCatalog.list(), *balloon.DATASETS, *builtin_panoptic.DATASETS, *CUSTOM})
        raise InputError(f"dataset {name!r} is not registered; known are {', '.join(known)}")


def _load_all(cfg: CfgNode, *, evaluation_only: bool) -> Datasets:
    folder = CustomFolder(cfg.DATASETS.CUSTOM, strict=cfg.DATASETS.STRICT) if cfg.DATASETS.CUSTOM else None
    train = [] if evaluation_only else [_load(name, folder, evaluated=False) for name in cfg.DATASETS.TRAIN]
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        train = [_without_empty_images(dataset) for dataset in train]
    return Datasets(train, [_load(name, folder) for name in cfg.DATASETS.TEST])


def _one_process_first(read: Callable[[], T]) -> T:
    """Read something in one process of each machine, and then in the others, which find large files in the cache.

    Raises:
        InputError, OSError: reading fails, here or in a process that reads first.
    """
    if comm.get_world_size() == 1:
        return read()
    is_first = comm.get_local_rank() == 0
    result: T | None = None
    error: InputError | OSError | None = None
    if is_first:
        try:
            result = read()
        except (InputError, OSError) as raised:  # the others must not wait for ever
            error = raised
    errors = [*filter(None, comm.all_gather(error))]
    if errors:
        raise error or errors[0]
    return result if result is not None else read()


def _load(name: str, folder: CustomFolder | None, *, evaluated: bool = True) -> Dataset:
    """Read a dataset; one that is evaluated with a file for AP, and a panoptic one with its things."""
    if folder and name in CUSTOM:
        catalog_name, records = folder.register(name, evaluated=evaluated)
    else:
        register_dataset(name)
        catalog_name, records = name, DatasetCatalog.get(name)
    metadata = MetadataCatalog.get(catalog_name)
    things = metadata.get("instances", None)
    panoptic_things = _load(things, folder) if things and evaluated else None
    return Dataset(name, catalog_name, records, label_map_from_metadata(metadata), metadata, panoptic_things)


def _without_empty_images(dataset: Dataset) -> Dataset:
    if "annotations" not in dataset.records[0]:
        return dataset
    records = dataset.records
    if not isinstance(records, Records):
        return replace(dataset, records=filter_images_with_only_crowd_annotations([*records]))
    # Detectron2 filters a list, for which all records would have to be in memory; these have only what it looks at.
    flags = ({"iscrowd": 0}, {"iscrowd": 1})
    dicts = [
        {"index": i, "annotations": [flags[bool(a.get("iscrowd", 0))] for a in record["annotations"]]}
        for i, record in enumerate(records)
    ]
    kept = filter_images_with_only_crowd_annotations(dicts)
    return replace(dataset, records=records.select([record["index"] for record in kept]))


def _check_panoptic(datasets: Datasets) -> None:
    for dataset in (*datasets.train, *datasets.test):
        if not dataset.metadata.get("panoptic_json"):
            known = sorted({*(n for n in DatasetCatalog.list() if MetadataCatalog.get(n).get("panoptic_json")),
                            *(n for n in (*balloon.DATASETS, *CUSTOM) if n.endswith(PANOPTIC_SUFFIX))})  # fmt: skip
            raise InputError(
                f"MODEL.DETR.PANOPTIC_ON is True, but dataset {dataset.name} has no panoptic annotations; those that "
                f"do are {', '.join(known)}"
            )
