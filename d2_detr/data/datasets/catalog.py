"""Entries of Detectron2's catalogs, which can be replaced when a file has changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from d2_detr.structures.label_map import LabelMap
from d2_detr.structures.records import Record

from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog


def datasets_folder() -> Path:
    """Return DETECTRON2_DATASETS, or `datasets` in the working folder, as for Detectron2's builtin datasets."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def register(name: str, load: Callable[[], Sequence[Record]], **metadata: object) -> None:
    """Register a dataset, replacing one of the same name. `load` runs on first use."""
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    DatasetCatalog.register(name, load)  # type: ignore[arg-type]  # Detectron2 makes a list of any sequence
    set_metadata(name, **metadata)


def set_metadata(name: str, **metadata: object) -> None:
    """Replace the metadata of a dataset, which Detectron2 does not allow to change."""
    if name in MetadataCatalog:
        MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(**metadata)


def label_map_from_metadata(metadata: Metadata) -> LabelMap:
    """Return the classes that metadata name, with category ids counted from 0 if none are given."""
    names = tuple(metadata.thing_classes)
    contiguous_ids = metadata.get("thing_dataset_id_to_contiguous_id")
    if contiguous_ids is None:
        return LabelMap(tuple(range(len(names))), names)
    # In a panoptic dataset, things and stuff share the contiguous ids and the names.
    contiguous_ids = contiguous_ids | metadata.get("stuff_dataset_id_to_contiguous_id", {})
    return LabelMap(tuple(sorted(contiguous_ids, key=contiguous_ids.get)), names)
