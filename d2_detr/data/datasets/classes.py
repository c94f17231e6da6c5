"""How many classes, and which: what MODEL.DETR.NUM_CLASSES says against what the training set holds."""

from __future__ import annotations

import logging

from d2_detr.data.datasets import custom
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

logger = logging.getLogger(__name__)


def dataset_classes(name: str) -> list[str]:
    """Names of the classes of a registered dataset, in the order of their contiguous ids."""
    if name not in DatasetCatalog and name.removesuffix("_panoptic") in custom.FOLDERS:
        raise InputError(f"dataset {name!r}: say where it lies, with --data FOLDER or the config key DATASETS.CUSTOM")
    if name not in DatasetCatalog:
        raise InputError(
            f"dataset {name!r} is not registered; registered are {', '.join(sorted(DatasetCatalog.list()))}"
        )
    if not hasattr(MetadataCatalog.get(name), "thing_classes"):
        DatasetCatalog.get(name)  # reading the annotations sets the metadata
    return list(MetadataCatalog.get(name).thing_classes)


def names_of_rows(cfg: CfgNode, name: str) -> list[str]:
    """The classes of a registered dataset, followed by names for the rows that the class head has to spare."""
    names = dataset_classes(name)
    return names + _spare_names(len(names), cfg.MODEL.DETR.NUM_CLASSES)


def instances_of(name: str) -> str:
    """The dataset that has the things of a panoptic dataset as instances; any other dataset itself."""
    return MetadataCatalog.get(name).get("instances", name)


def dataset_label_map(name: str) -> LabelMap:
    """Names of the classes of a registered dataset, and the category ids that its annotation file has for them."""
    names = dataset_classes(name)
    metadata = MetadataCatalog.get(name)
    contiguous_ids = getattr(metadata, "thing_dataset_id_to_contiguous_id", None)
    if contiguous_ids is None:
        return LabelMap(tuple(range(len(names))), tuple(names))
    # Of a panoptic dataset: things and stuff share the contiguous ids, and the names.
    contiguous_ids = contiguous_ids | getattr(metadata, "stuff_dataset_id_to_contiguous_id", {})
    return LabelMap(tuple(sorted(contiguous_ids, key=contiguous_ids.get)), tuple(names))


def resolve_num_classes(cfg: CfgNode) -> int:
    """MODEL.DETR.NUM_CLASSES as a count: -1 counts the categories of the first training set."""
    num_classes = cfg.MODEL.DETR.NUM_CLASSES
    if num_classes > 0:
        return num_classes
    if num_classes != -1:
        raise InputError(f"MODEL.DETR.NUM_CLASSES {num_classes}: expected a positive number, or -1 to count")
    if not cfg.DATASETS.TRAIN:
        raise InputError("MODEL.DETR.NUM_CLASSES -1 counts the training set, but DATASETS.TRAIN is empty; set either")
    return len(dataset_classes(cfg.DATASETS.TRAIN[0]))


def resolve_stuff_classes(cfg: CfgNode) -> tuple[int, ...]:
    """MODEL.DETR.STUFF_CLASSES, or the stuff of the first training set, as contiguous ids."""
    if cfg.MODEL.DETR.STUFF_CLASSES or not cfg.DATASETS.TRAIN:
        return tuple(cfg.MODEL.DETR.STUFF_CLASSES)
    name = cfg.DATASETS.TRAIN[0]
    dataset_classes(name)  # sees that the metadata are there
    return tuple(sorted(getattr(MetadataCatalog.get(name), "stuff_dataset_id_to_contiguous_id", {}).values()))


def check_num_classes(cfg: CfgNode) -> None:
    """Compare NUM_CLASSES with every dataset of the config: too small is an error, too large a warning."""
    num_classes = resolve_num_classes(cfg)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        found = len(dataset_classes(name))
        if num_classes < found:
            raise InputError(
                f"MODEL.DETR.NUM_CLASSES is {num_classes}, but dataset {name} has {found} categories; set it to "
                f"{found}, or to -1 to count"
            )
        if num_classes > found:
            logger.warning(
                "MODEL.DETR.NUM_CLASSES is %d, dataset %s has %d categories: the other %d rows of the class head will "
                "learn that they never occur.", num_classes, name, found, num_classes - found,
            )  # fmt: skip


def model_label_map(cfg: CfgNode) -> LabelMap | None:
    """The classes of the model of a config: those of the first training set, and names for the rows to spare, with ids
    beyond all others."""
    if not cfg.DATASETS.TRAIN:
        return None
    known = dataset_label_map(cfg.DATASETS.TRAIN[0])
    num_classes = resolve_num_classes(cfg)
    spare = range(max(known.ids) + 1, max(known.ids) + 1 + num_classes - len(known))
    return LabelMap((*known.ids, *spare), (*known.names, *_spare_names(len(known), num_classes)))


def _spare_names(num_known: int, num_classes: int) -> list[str]:
    return [f"class {row}" for row in range(num_known, num_classes)]
