"""Statistics of a dataset: images, objects per class, and suspicious boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tabulate import tabulate

from d2_detr.data.annotations import Annotation, annotated_wh, record_annotations
from d2_detr.structures.dataset import Dataset
from d2_detr.structures.label_map import LabelMap
from d2_detr.structures.records import Record
from d2_detr.utils.processes import chunks, map_in_processes, num_cores

from detectron2.structures import BoxMode

CHUNK_SIZE = 2000  # images per piece of work; smaller datasets need no other process
MIN_SIDE = 2  # pixels; smaller boxes are rarely meant


@dataclass
class DatasetStats:
    """Counts of one or more datasets, without crowds, which are not trained on.

    Attributes:
        names: of the datasets.
        num_images, num_empty: images, and those without objects.
        boxes_per_class, images_per_class: by contiguous id.
        objects_per_image: by file name.
        out_of_bounds, degenerate, duplicates: the file name of each box that extends beyond its image by more than a
            pixel, has a side below MIN_SIDE, or repeats another box of its class.
    """

    names: tuple[str, ...]
    num_images: int = 0
    num_empty: int = 0
    boxes_per_class: Counter[int] = field(default_factory=Counter)
    images_per_class: Counter[int] = field(default_factory=Counter)
    objects_per_image: Counter[str] = field(default_factory=Counter)
    out_of_bounds: list[str] = field(default_factory=list)
    degenerate: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Names of the datasets, for messages."""
        return ", ".join(self.names)

    @property
    def num_boxes(self) -> int:
        """Number of objects."""
        return self.boxes_per_class.total()

    def count(self, record: Record) -> None:
        """Count an image and its objects."""
        annotations = [a for a in record_annotations(record) if not a.get("iscrowd", 0)]
        classes = [annotation["category_id"] for annotation in annotations]
        self.num_images += 1
        self.num_empty += not classes
        self.boxes_per_class.update(classes)
        self.images_per_class.update(set(classes))
        name = record["file_name"]
        self.objects_per_image[name] = len(classes)
        boxes = [_box_xyxy(annotation) for annotation in annotations]
        num_distinct = len({(class_id, *box) for class_id, box in zip(classes, boxes, strict=True)})
        self.out_of_bounds += [name for box in boxes if _is_out_of_bounds(box, record)]
        self.degenerate += [name for x0, y0, x1, y1 in boxes if min(x1 - x0, y1 - y0) < MIN_SIDE]
        self.duplicates += [name] * (len(boxes) - num_distinct)

    def add(self, other: DatasetStats) -> None:
        """Add the counts of other images."""
        self.num_images += other.num_images
        self.num_empty += other.num_empty
        self.boxes_per_class.update(other.boxes_per_class)
        self.images_per_class.update(other.images_per_class)
        dict.update(self.objects_per_image, other.objects_per_image)  # by name: there is nothing to sum up
        self.out_of_bounds += other.out_of_bounds
        self.degenerate += other.degenerate
        self.duplicates += other.duplicates


def compute_stats(datasets: Sequence[Dataset]) -> DatasetStats:
    """Compute the statistics of one or more datasets together."""
    stats = DatasetStats(tuple(dataset.name for dataset in datasets))
    for dataset in datasets:

        def count(indices: range, records: Sequence[Record] = dataset.records) -> DatasetStats:
            part = DatasetStats(())
            for record in records[indices.start : indices.stop]:
                part.count(record)
            return part

        work = chunks(len(dataset.records), CHUNK_SIZE)
        for part in map_in_processes(count, work, f"Counting objects in {dataset.name}", num_workers=num_cores()):
            stats.add(part)
    return stats


def _box_xyxy(annotation: Annotation) -> Sequence[float]:
    if annotation["bbox_mode"] == BoxMode.XYWH_ABS:  # as nearly always; Detectron2 converts a tensor at a time
        x, y, width, height = annotation["bbox"]
        return x, y, x + width, y + height
    return BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)


def _is_out_of_bounds(box_xyxy: Sequence[float], record: Record) -> bool:
    """Return whether a box extends beyond its image by more than rounding; False if its size is unknown."""
    if not (size_wh := annotated_wh(record)):
        return False
    x0, y0, x1, y1 = box_xyxy
    return min(x0, y0) < -1 or x1 > size_wh[0] + 1 or y1 > size_wh[1] + 1


def class_table(label_map: LabelMap, train: DatasetStats, val: DatasetStats) -> str:
    """Return a table with ids, name, and number of boxes and images of each class."""
    rows = [
        (
            category_id, i, name,
            train.boxes_per_class[i], train.images_per_class[i], val.boxes_per_class[i], val.images_per_class[i],
        )
        for i, (category_id, name) in enumerate(zip(label_map.ids, label_map.names, strict=True))
    ]  # fmt: skip
    totals = ("", "", "all", train.num_boxes, train.num_images, val.num_boxes, val.num_images)
    empty = ("", "", "without objects", "", train.num_empty, "", val.num_empty)
    headers = ("category id", "class", "name", "train boxes", "images", "val boxes", "images")
    return tabulate([*rows, totals, empty], headers, tablefmt="simple", disable_numparse=[2])
