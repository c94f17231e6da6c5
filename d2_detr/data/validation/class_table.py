"""What a dataset holds, class by class, and what looks wrong with it: to be seen before a training, not after."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

from tabulate import tabulate
from tqdm import tqdm

from d2_detr.data.datasets.classes import dataset_label_map
from d2_detr.data.images import check_image
from d2_detr.data.validation.masks import check_masks
from d2_detr.data.validation.statistics import Datasets, DatasetStats, compute_stats
from d2_detr.data.validation.warnings import box_warnings, file_warnings
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

logger = logging.getLogger(__name__)
READERS = 16  # threads: reading headers waits for the disk


def look_at_data(cfg: CfgNode, *, evaluation_only: bool) -> None:
    """Check pictures and masks of the datasets of a config; before a training log the class table and what looks wrong.

    Raises:
        FileNotFoundError, InputError: see check_images and check_masks; or a training or test set without an object.
    """
    names = cfg.DATASETS.TEST if evaluation_only else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    datasets = {name: DatasetCatalog.get(name) for name in names}
    check_images(datasets)
    if cfg.MODEL.MASK_ON:
        check_masks({name: datasets[name] for name in cfg.DATASETS.TRAIN if name in datasets}, cfg.INPUT.MASK_FORMAT)
        check_masks({name: datasets[name] for name in cfg.DATASETS.TEST}, "bitmask")  # evaluation takes both
    if evaluation_only:
        return
    train, val = (
        compute_stats({name: datasets[name] for name in split}) for split in (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    )
    label_map = dataset_label_map(cfg.DATASETS.TRAIN[0])
    logger.info("Classes of the data:\n%s", class_table(label_map, train, val))
    if not train.boxes:
        raise InputError(f"{train.title}: not an object in {train.num_pictures} pictures, so there is nothing to learn")
    if val.names and not val.boxes:
        raise InputError(
            f"{val.title}: not an object in {val.num_pictures} pictures, so there is no AP to measure. "
            "Annotate them, take others (tools/split_coco.py shares annotated pictures out), or train without any: "
            "DATASETS.TEST '()'"
        )
    for oddity in [
        *box_warnings(label_map, train, val, cfg.MODEL.DETR.NUM_OBJECT_QUERIES),
        *file_warnings(train, val),
    ]:
        logger.warning(oddity)


def check_images(datasets: Datasets) -> None:
    """See that every picture is there, can be opened, is whole, and has the size that is annotated.

    Raises:
        FileNotFoundError, InputError: of the first that is not so; the message counts the others.
    """
    named = [(name, record) for name, dataset in datasets.items() for record in dataset]
    with ThreadPoolExecutor(READERS) as pool:
        checks = pool.map(_picture_problem, *zip(*named, strict=True)) if named else ()
        problems = [*filter(None, tqdm(checks, "Looking at the pictures", len(named), delay=2, leave=False))]
    if problems:
        others = f" (and {len(problems) - 1} more pictures with something wrong)" if len(problems) > 1 else ""
        raise type(problems[0])(f"{problems[0]}{others}") from problems[0]


def _picture_problem(name: str, record: dict) -> FileNotFoundError | InputError | None:
    try:
        check_image(record["file_name"], (record["width"], record["height"]) if "width" in record else None)
    except FileNotFoundError as error:
        remedy = "put it there, or remove its entry"
        return FileNotFoundError(f"{error}, but the annotations of {name} name it; {remedy}")
    except InputError as error:
        return error
    return None


def class_table(label_map: LabelMap, train: DatasetStats, val: DatasetStats) -> str:
    """Category id, contiguous id, name, and in how many boxes and pictures, with a line of sums."""
    rows = [
        (raw_id, i, name, train.boxes[i], train.pictures[i], val.boxes[i], val.pictures[i])
        for i, (raw_id, name) in enumerate(zip(label_map.ids, label_map.names, strict=True))
    ]
    sums = ("", "", "all", train.boxes.total(), train.num_pictures, val.boxes.total(), val.num_pictures)
    empty = ("", "", "without objects", "", train.num_empty, "", val.num_empty)
    headers = ("category id", "class", "name", "train boxes", "pictures", "val boxes", "pictures")
    return tabulate([*rows, sums, empty], headers, tablefmt="simple", disable_numparse=[2])
