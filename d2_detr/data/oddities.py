"""What looks wrong with a dataset and can be trained on all the same: a sentence for each."""

from __future__ import annotations

import filecmp
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from d2_detr.checkpoint.class_head import LabelMap
from d2_detr.data.pictures import SUFFIXES
from d2_detr.data.survey import THINNEST, Survey


def oddities_of_boxes(label_map: LabelMap, train: Survey, val: Survey, num_queries: int) -> Iterator[str]:
    """Classes without a box, more objects than queries, and boxes as nobody draws them."""
    for data, consequence in ((train, "cannot be learned"), (val, "will have no AP")):
        missing = [name for i, name in enumerate(label_map.names) if not data.boxes[i]]
        if missing and data.names:
            yield f"{data.title} has no box of {', '.join(missing)}: what is missing there {consequence}."
    for data in (train, val):
        crowded = {name: count for name, count in data.objects.items() if count > num_queries}
        if crowded:
            worst = max(crowded, key=crowded.get)
            yield (
                f"{len(crowded)} pictures of {data.title} have more objects than the model has queries "
                f"({num_queries}), most {worst} with {crowded[worst]}: the others cannot be found. Cut such pictures "
                "into parts, or raise MODEL.DETR.NUM_OBJECT_QUERIES (its pretrained queries are lost then)."
            )
        for files, what in (
            (data.sticking_out, "stick out of their pictures and are cut off at the edge"),
            (data.thin, f"are less than {THINNEST} pixels wide or high"),
            (data.repeated, "are there a second time, with the same class: an object would have to be found twice"),
        ):
            if files:
                yield f"{len(files)} boxes of {data.title} {what}; the first in {files[0]}."


def oddities_of_files(train: Survey, val: Survey) -> Iterator[str]:
    """Pictures that both parts have, and pictures that none has."""
    if shared := _same_content(train.objects, val.objects):
        yield (
            f"{len(shared)} pictures of {val.title} are trained on, too, the first is {shared[0]}: AP will be too "
            "high. Remove them from one of the two."
        )
    listed = {Path(name) for name in (*train.objects, *val.objects)}
    folders = sorted({path.parent for path in listed})
    pictures = (path for folder in folders for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if unused := sorted(path for path in pictures if path not in listed and not path.name.startswith(".")):
        yield (
            f"{len(unused)} pictures beside the others are not in the annotations, and not used; the first is "
            f"{unused[0]}. Pictures without objects are of use, if the annotations name them."
        )


def _same_content(train: Iterable[str], val: Iterable[str]) -> list[str]:
    """The files of `val` that are also among those of `train`, under whatever name."""
    by_size = defaultdict(list)
    for name in train:
        by_size[os.path.getsize(name)].append(name)
    return [name for name in val if any(_same_bytes(name, other) for other in by_size.get(os.path.getsize(name), ()))]


def _same_bytes(one: str, other: str) -> bool:
    return one == other or filecmp.cmp(one, other, shallow=False)
