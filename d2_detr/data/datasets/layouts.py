"""Where a custom dataset has its annotations and images: the layouts that are recognized.

    custom    annotations/custom_train.json  annotations/custom_val.json  train2017/  val2017/
    coco      annotations/instances_train2017.json  annotations/instances_val2017.json  train2017/  val2017/
    roboflow  train/_annotations.coco.json  valid/_annotations.coco.json, images beside them
    via       train/via_region_data.json  val/via_region_data.json, images beside them

The first layout that matches is taken. Each may have a test split in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from d2_detr.config.keys import CUSTOM_TEST, CUSTOM_TRAIN, CUSTOM_VAL
from d2_detr.data.datasets.suggestions import MAX_JSON_FILES, suggest_remedy
from d2_detr.data.formats.coco_panoptic import panoptic_json_path
from d2_detr.data.formats.via import VIA_FILE, is_via
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import read_json

MAX_LISTED = 10


class Place(NamedTuple):
    """Where a layout has a split; of several files or folders, the first that exists counts."""

    annotations: tuple[str, ...]
    images: tuple[str, ...] = ()  # empty: beside the annotations


def _coco_place(split: str) -> Place:
    return Place(
        (f"annotations/instances_{split}2017.json", f"annotations/instances_{split}.json"),
        (f"{split}2017", split, f"images/{split}2017", f"images/{split}"),
    )


LAYOUTS = {
    "custom": {
        CUSTOM_TRAIN: Place(("annotations/custom_train.json",), ("train2017",)),
        CUSTOM_VAL: Place(("annotations/custom_val.json",), ("val2017",)),
        CUSTOM_TEST: Place(("annotations/custom_test.json",), ("test2017",)),
    },
    "coco": {
        CUSTOM_TRAIN: _coco_place("train"),
        CUSTOM_VAL: _coco_place("val"),
        CUSTOM_TEST: _coco_place("test"),
    },
    "roboflow": {
        CUSTOM_TRAIN: Place(("train/_annotations.coco.json",)),
        CUSTOM_VAL: Place(("valid/_annotations.coco.json", "test/_annotations.coco.json")),
        CUSTOM_TEST: Place(("test/_annotations.coco.json",)),
    },
    "via": {  # of any name
        CUSTOM_TRAIN: Place((f"train/{VIA_FILE}",)),
        CUSTOM_VAL: Place((f"val/{VIA_FILE}",)),
        CUSTOM_TEST: Place((f"test/{VIA_FILE}",)),
    },
}


@dataclass(frozen=True)
class Split:
    """The user's annotations of a split, and the folders that may hold its images. None of them need exist."""

    annotations: Path
    folders: tuple[Path, ...]

    @property
    def images(self) -> Path:
        """The first of the folders that exists, or the expected one."""
        return next((folder for folder in self.folders if folder.is_dir()), self.folders[0])


@dataclass(frozen=True)
class Layout:
    """A folder, the name of its layout, and its splits by dataset name (custom_train, custom_val, custom_test)."""

    name: str
    root: Path
    splits: Mapping[str, Split]


def find_layout(root: Path) -> Layout:
    """Recognize the layout of a folder by its annotation files; those of one split are enough.

    Raises:
        FileNotFoundError: no layout matches; the message says what to do, as far as that is known.
        InputError: several VIA files lie side by side.
    """
    if layout := _match_layout(root):
        return layout
    if root.suffix == ".json" and root.is_file():
        for folder in root.parents[:2]:
            layout = _match_layout(folder)
            if layout and root in [split.annotations for split in layout.splits.values()]:
                raise FileNotFoundError(f"{root}: is a file of a dataset; give its folder, {folder}")
    if remedy := suggest_remedy(root):
        raise FileNotFoundError(f"{root}: {remedy}")
    layouts = ", ".join(f"`{name}` ({_description(places)})" for name, places in LAYOUTS.items())
    raise FileNotFoundError(
        f"{root / LAYOUTS['custom'][CUSTOM_TRAIN].annotations[0]}: no such file, nor annotations of another layout. A "
        f"custom dataset is a folder with the layout {layouts}. {root} {_listing(root)}"
    )


def _match_layout(root: Path) -> Layout | None:
    for name, places in LAYOUTS.items():
        splits = {split: _split(root, place, via=name == "via") for split, place in places.items()}
        if any(_exists(split.annotations) for split in splits.values()):
            return Layout(name, root, splits)
    return None


def _split(root: Path, place: Place, *, via: bool) -> Split:
    expected = [root / file for file in place.annotations]
    annotations = next(filter(_exists, expected), expected[0])
    if via and not annotations.is_file():
        annotations = _find_via_file(annotations.parent) or annotations
    return Split(annotations, tuple(root / folder for folder in place.images) or (annotations.parent,))


def _exists(annotations: Path) -> bool:
    """Return whether there are annotations of instances, or panoptic ones, which are enough."""
    return annotations.is_file() or panoptic_json_path(annotations).is_file()


def _find_via_file(folder: Path) -> Path | None:
    """Return the only JSON file in a folder that is VIA's."""
    paths = sorted(folder.glob("*.json"))
    if len(paths) > MAX_JSON_FILES:
        return None
    found = [path for path in paths if _is_via_file(path)]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{folder}: {names} are all VIA annotations; rename the one to use to {VIA_FILE}")
    return found[0] if found else None


def _is_via_file(path: Path) -> bool:
    try:
        return is_via(read_json(path))
    except InputError:  # not JSON
        return False


def _description(places: Mapping[str, Place]) -> str:
    shown = [places[CUSTOM_TRAIN], places[CUSTOM_VAL]]
    folders = [f"{folder}/" for place in shown for folder in place.images[:1]]
    return ", ".join([*(place.annotations[0] for place in shown), *(folders or ["images beside them"])])


def _listing(root: Path) -> str:
    """List what a folder contains: subfolders first, then JSON files in it and in them."""
    found = [path for visible in ("[!.]*", "[!.]*/[!.]*.json") for path in root.glob(visible)]
    found.sort(key=lambda path: (not path.is_dir(), path.suffix != ".json", path))
    names = [f"{path.relative_to(root)}{'/' * path.is_dir()}" for path in found[:MAX_LISTED]]
    return f"contains {', '.join(names)}{', ...' * (len(found) > MAX_LISTED)}" if names else "is empty"
