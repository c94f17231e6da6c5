"""Warnings about datasets that can be trained on, but probably contain mistakes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from d2_detr.data.formats.roboflow import original_image_name
from d2_detr.data.validation.statistics import MIN_SIDE, DatasetStats
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.command_line import command

TAIL = 256  # bytes


def box_warnings(label_map: LabelMap, train: DatasetStats, val: DatasetStats, num_queries: int) -> Iterator[str]:
    """Warn about missing classes, suspicious boxes, and more objects than queries."""
    for stats, consequence in ((train, "cannot be learned"), (val, "will have no AP")):
        missing = [name for i, name in enumerate(label_map.names) if not stats.boxes_per_class[i]]
        if missing and stats.names:
            yield f"{stats.title} has no box of {', '.join(missing)}: a class without boxes {consequence}."
    for stats in (train, val):
        crowded = {name: count for name, count in stats.objects_per_image.items() if count > num_queries}
        if crowded:
            worst = max(crowded, key=lambda name: crowded[name])
            yield (
                f"{len(crowded)} of {stats.num_images} images in {stats.title} have more objects than the model has "
                f"queries ({num_queries}), most of all {worst} with {crowded[worst]}: the others cannot be detected. "
                "Cut such images into tiles, or raise MODEL.DETR.NUM_OBJECT_QUERIES (this loses the pretrained ones)."
            )
        for files, problem in (
            (stats.out_of_bounds, "are out of bounds and are clipped to their images"),
            (stats.degenerate, f"are less than {MIN_SIDE} pixels wide or high"),
            (stats.duplicates, "are duplicates, of the same class: an object would have to be detected twice"),
        ):
            if files:
                yield f"{len(files)} of {stats.num_boxes} boxes in {stats.title} {problem}; first in {files[0]}."


def file_warnings(train: DatasetStats, val: DatasetStats) -> Iterator[str]:
    """Warn about leakage between the splits, and about images without an entry."""
    if shared := _same_content(train.objects_per_image, val.objects_per_image):
        yield (
            f"{len(shared)} of {val.num_images} images in {val.title} are also in {train.title}, first {shared[0]}: AP "
            "will be too high; remove them from one of the two."
        )
    if copies := _same_original(train.objects_per_image, val.objects_per_image):
        yield (
            f"{len(copies)} of {val.num_images} images in {val.title} are augmented copies of images in {train.title}, "
            f"first {copies[0]}: AP will be too high; split by original image, as {command('split')} does."
        )
    if unlisted := _unlisted([*train.objects_per_image, *val.objects_per_image]):
        yield (
            f"{len(unlisted)} images in the same folders are not in the annotations, and are not used; first "
            f"{unlisted[0]}. If they are images without objects, add them to the annotations to train on them."
        )


def _unlisted(listed: Collection[str]) -> list[Path]:
    """Return the images of the same types in the same folders that are not listed."""
    parts = [os.path.split(name) for name in listed]
    # A folder may be listed under several names.
    folders = {folder: Path(folder or ".").resolve() for folder in {folder for folder, _ in parts}}
    suffixes = {os.path.splitext(name)[1].lower() for _, name in parts}
    known: dict[Path, set[str]] = {folder: set() for folder in folders.values()}
    for folder, name in parts:
        known[folders[folder]].add(name)
    return sorted(
        folder / name
        for folder, names in known.items()
        for name in {*os.listdir(folder)} - names
        if os.path.splitext(name)[1].lower() in suffixes and not name.startswith(".")
    )


def _same_content(train: Collection[str], val: Collection[str]) -> list[str]:
    """Return the files of `val` whose content is that of a file of `train`."""
    # Most images differ in their sizes, and nearly all others in their last bytes, so that few are read.
    for fingerprint in (os.path.getsize, _tail, _digest):
        train_of, val_of = ({name: fingerprint(name) for name in names} for names in (train, val))
        common = {*train_of.values()} & {*val_of.values()}
        train, val = ([name for name, value in of.items() if value in common] for of in (train_of, val_of))
    return [*val]


def _same_original(train: Collection[str], val: Collection[str]) -> list[str]:
    """Return the files of `val` that share their original image with `train`."""
    originals = {original_image_name(name) for name in train} - {None}
    return [name for name in val if original_image_name(name) in originals] if originals else []


def _tail(name: str) -> tuple[int, bytes]:
    """Return the size of a file and its last bytes."""
    with open(name, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - TAIL, 0))
        return size, file.read()


def _digest(name: str) -> bytes:
    return hashlib.sha256(Path(name).read_bytes()).digest()
