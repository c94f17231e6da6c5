"""How much there is in a dataset: pictures, objects by class, and boxes that look wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from d2_detr.data.datasets.panoptic import objects_of

from detectron2.structures import BoxMode

Datasets = Mapping[str, list[dict]]  # Detectron2's dicts by the name of the dataset
THINNEST = 2  # pixels of an object that somebody can have meant


@dataclass
class DatasetStats:
    """Counts of a dataset; crowds are left out, as in training. Lists hold file names, one for each box."""

    names: tuple[str, ...]
    num_pictures: int = 0
    num_empty: int = 0
    boxes: Counter[int] = field(default_factory=Counter)
    pictures: Counter[int] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)  # by file name
    sticking_out: list[str] = field(default_factory=list)
    thin: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        return ", ".join(self.names)


def compute_stats(datasets: Datasets) -> DatasetStats:
    """Count the objects of datasets, all of them together."""
    result = DatasetStats(tuple(datasets))
    for record in (record for dataset in datasets.values() for record in dataset):
        annotations = [a for a in objects_of(record) if not a.get("iscrowd", 0)]
        classes = [annotation["category_id"] for annotation in annotations]
        result.num_pictures += 1
        result.num_empty += not classes
        result.boxes.update(classes)
        result.pictures.update(set(classes))
        name = record["file_name"]
        result.objects[name] = len(classes)
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        result.sticking_out += [name for box in boxes if _sticks_out(box, record)]
        result.thin += [name for x0, y0, x1, y1 in boxes if min(x1 - x0, y1 - y0) < THINNEST]
        result.repeated += [name] * (
            len(boxes) - len({(label, *box) for label, box in zip(classes, boxes, strict=True)})
        )
    return result


def _sticks_out(box_xyxy: Sequence[float], record: dict) -> bool:
    """By more than a pixel, which rounding explains."""
    x0, y0, x1, y1 = box_xyxy
    return min(x0, y0) < -1 or x1 > record["width"] + 1 or y1 > record["height"] + 1
