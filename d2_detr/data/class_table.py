"""What a dataset holds, class by class, and what looks wrong with it: to be seen before a training, not after."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tabulate import tabulate
from tqdm import tqdm

from d2_detr.checkpoint.class_head import LabelMap
from d2_detr.data.classes import dataset_label_map
from d2_detr.data.masks import check_masks
from d2_detr.data.panoptic import objects_of
from d2_detr.data.pictures import check_picture

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode

logger = logging.getLogger(__name__)
Datasets = Mapping[str, list[dict]]  # Detectron2's dicts by the name of the dataset
READERS = 16  # threads: reading headers waits for the disk


@dataclass
class Survey:
    """Counts of a dataset; crowds are left out, as in training."""

    names: tuple[str, ...]
    num_pictures: int = 0
    num_empty: int = 0
    boxes: Counter[int] = field(default_factory=Counter)
    pictures: Counter[int] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)  # by file name
    sticking_out: list[str] = field(default_factory=list)  # file names, one for each box

    @property
    def title(self) -> str:
        return ", ".join(self.names)


def look_at_data(cfg: CfgNode, *, evaluation_only: bool) -> None:
    """Check pictures and masks of the datasets of a config; before a training log the class table and what looks wrong.

    Raises:
        FileNotFoundError, InputError: see check_pictures and check_masks.
    """
    names = cfg.DATASETS.TEST if evaluation_only else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    datasets = {name: DatasetCatalog.get(name) for name in names}
    check_pictures(datasets)
    if cfg.MODEL.MASK_ON:
        check_masks({name: datasets[name] for name in cfg.DATASETS.TRAIN if name in datasets}, cfg.INPUT.MASK_FORMAT)
        check_masks({name: datasets[name] for name in cfg.DATASETS.TEST}, "bitmask")  # evaluation takes both
    if evaluation_only:
        return
    train, val = (survey({name: datasets[name] for name in split}) for split in (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST))
    label_map = dataset_label_map(cfg.DATASETS.TRAIN[0])
    logger.info("Classes of the data:\n%s", class_table(label_map, train, val))
    for warning in warnings(label_map, train, val, cfg.MODEL.DETR.NUM_OBJECT_QUERIES):
        logger.warning(warning)


def check_pictures(datasets: Datasets) -> None:
    """See that every picture is there, can be opened, and has the size that is annotated.

    Raises:
        FileNotFoundError, InputError: for the first that is not so.
    """
    named = [(name, record) for name, dataset in datasets.items() for record in dataset]

    def check(name: str, record: dict) -> None:
        try:
            check_picture(record["file_name"], (record["width"], record["height"]) if "width" in record else None)
        except FileNotFoundError as error:
            remedy = "put it there, or remove its entry"
            raise FileNotFoundError(f"{error}, but the annotations of {name} name it; {remedy}") from error

    with ThreadPoolExecutor(READERS) as pool:
        checks = pool.map(check, *zip(*named, strict=True)) if named else ()
        for _ in tqdm(checks, "Looking at the pictures", len(named), delay=2, leave=False):
            pass


def survey(datasets: Datasets) -> Survey:
    """Count the objects of datasets, all of them together."""
    result = Survey(tuple(datasets))
    for record in (record for dataset in datasets.values() for record in dataset):
        annotations = [a for a in objects_of(record) if not a.get("iscrowd", 0)]
        classes = [annotation["category_id"] for annotation in annotations]
        result.num_pictures += 1
        result.num_empty += not classes
        result.boxes.update(classes)
        result.pictures.update(set(classes))
        result.objects[record["file_name"]] = len(classes)
        result.sticking_out += [record["file_name"] for annotation in annotations if _sticks_out(annotation, record)]
    return result


def class_table(label_map: LabelMap, train: Survey, val: Survey) -> str:
    """Category id, contiguous id, name, and in how many boxes and pictures, with a line of sums."""
    rows = [
        (raw_id, i, name, train.boxes[i], train.pictures[i], val.boxes[i], val.pictures[i])
        for i, (raw_id, name) in enumerate(zip(label_map.ids, label_map.names, strict=True))
    ]
    sums = ("", "", "all", train.boxes.total(), train.num_pictures, val.boxes.total(), val.num_pictures)
    empty = ("", "", "without objects", "", train.num_empty, "", val.num_empty)
    headers = ("category id", "class", "name", "train boxes", "pictures", "val boxes", "pictures")
    return tabulate([*rows, sums, empty], headers, tablefmt="simple", disable_numparse=[2])


def warnings(label_map: LabelMap, train: Survey, val: Survey, num_queries: int) -> list[str]:
    """What looks wrong, a sentence each."""
    found = []
    for data, consequence in ((train, "cannot be learned"), (val, "will have no AP")):
        missing = [name for i, name in enumerate(label_map.names) if not data.boxes[i]]
        if missing and data.names:
            found.append(f"{data.title} has no box of {', '.join(missing)}: what is missing there {consequence}.")
    for data in (train, val):
        crowded = {name: count for name, count in data.objects.items() if count > num_queries}
        if crowded:
            worst = max(crowded, key=crowded.get)
            found.append(
                f"{len(crowded)} pictures of {data.title} have more objects than the model has queries "
                f"({num_queries}), most {worst} with {crowded[worst]}: the others cannot be found. Cut such pictures "
                "into parts, or raise MODEL.DETR.NUM_OBJECT_QUERIES (its pretrained queries are lost then)."
            )
        if data.sticking_out:
            found.append(
                f"{len(data.sticking_out)} boxes of {data.title} stick out of their pictures and are cut off at the "
                f"edge, the first in {data.sticking_out[0]}."
            )
    return found


def _sticks_out(annotation: dict, record: dict) -> bool:
    """By more than a pixel, which rounding explains."""
    x0, y0, x1, y1 = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    return min(x0, y0) < -1 or x1 > record["width"] + 1 or y1 > record["height"] + 1
