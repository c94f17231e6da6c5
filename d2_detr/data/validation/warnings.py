"""What looks wrong with a dataset and can be trained on all the same: a sentence for each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from d2_detr.data.validation.statistics import THINNEST, DatasetStats
from d2_detr.structures.label_map import LabelMap


def box_warnings(label_map: LabelMap, train: DatasetStats, val: DatasetStats, num_queries: int) -> Iterator[str]:
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


def file_warnings(train: DatasetStats, val: DatasetStats) -> Iterator[str]:
    """Pictures that both parts have, and pictures that none has."""
    if shared := _same_content(train.objects, val.objects):
        yield (
            f"{len(shared)} pictures of {val.title} are trained on, too, the first is {shared[0]}: AP will be too "
            "high. Remove them from one of the two."
        )
    if unused := _beside([Path(name) for name in (*train.objects, *val.objects)]):
        yield (
            f"{len(unused)} pictures beside the others are not in the annotations, and not used; the first is "
            f"{unused[0]}. If they are pictures without objects, they are of use where the annotations name them."
        )


def _beside(listed: Sequence[Path]) -> list[Path]:
    """Pictures of the same kind in the same folders."""
    folders = {path.parent: path.parent.resolve() for path in listed}  # of several names for one folder the same
    known = {(folders[path.parent], path.name) for path in listed}
    suffixes = {path.suffix.lower() for path in listed}
    return sorted(
        path
        for folder in set(folders.values())
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and (folder, path.name) not in known
    )


def _same_content(train: Collection[str], val: Collection[str]) -> list[str]:
    """The files of `val` that are also among those of `train`, under whatever name."""
    sizes = {name: os.path.getsize(name) for name in (*train, *val)}
    possible = {sizes[name] for name in train} & {sizes[name] for name in val}
    trained_on = {_digest(name) for name in train if sizes[name] in possible}
    return [name for name in val if sizes[name] in possible and _digest(name) in trained_on]


def _digest(name: str) -> bytes:
    return hashlib.sha256(Path(name).read_bytes()).digest()
