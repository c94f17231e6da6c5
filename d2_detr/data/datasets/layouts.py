"""Where a dataset of one's own has its annotations and pictures: the layouts that people's folders come in.

    custom    annotations/custom_train.json  annotations/custom_val.json  train2017/  val2017/
    coco      annotations/instances_train2017.json  annotations/instances_val2017.json  train2017/  val2017/
    roboflow  train/_annotations.coco.json  valid/_annotations.coco.json, pictures beside them
    via       train/via_region_data.json  val/via_region_data.json, pictures beside them

The first one that fits is taken.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from d2_detr.data.datasets.panoptic import made_json
from d2_detr.data.images import SUFFIXES
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import read_json

TRAIN, VAL = "custom_train", "custom_val"
MOST_JSON_FILES = 20  # in a folder; where there are more, each belongs to one picture, which is not VIA's way
SHOWN = 10  # entries of a folder, in messages
OTHER_FORMATS = {
    "YOLO's format": ("data.yaml", "labels/**/*.txt", "train/labels/*.txt"),
    "Pascal VOC's format": ("Annotations/*.xml", "annotations/*.xml", "train/*.xml", "*.xml"),
}


class Place(NamedTuple):
    """Where a layout has a split; of several files or folders, the first that is there counts."""

    annotations: tuple[str, ...]
    pictures: tuple[str, ...] = ()  # without any, they lie beside the annotations


LAYOUTS = {
    "custom": {
        TRAIN: Place(("annotations/custom_train.json",), ("train2017",)),
        VAL: Place(("annotations/custom_val.json",), ("val2017",)),
    },
    "coco": {
        TRAIN: Place(
            ("annotations/instances_train2017.json", "annotations/instances_train.json"),
            ("train2017", "train", "images/train2017", "images/train"),
        ),
        VAL: Place(
            ("annotations/instances_val2017.json", "annotations/instances_val.json"),
            ("val2017", "val", "images/val2017", "images/val"),
        ),
    },
    "roboflow": {
        TRAIN: Place(("train/_annotations.coco.json",)),
        VAL: Place(("valid/_annotations.coco.json", "test/_annotations.coco.json")),
    },
    "via": {  # by this or any other name
        TRAIN: Place(("train/via_region_data.json",)),
        VAL: Place(("val/via_region_data.json",)),
    },
}


@dataclass(frozen=True)
class Split:
    """Annotations as the person has them, and the folders that may hold their pictures. None of them need be there."""

    annotations: Path
    folders: tuple[Path, ...]

    @property
    def pictures(self) -> Path:
        return next((folder for folder in self.folders if folder.is_dir()), self.folders[0])


@dataclass(frozen=True)
class Layout:
    """A folder, the name of its layout, and both splits, by the names of their datasets."""

    name: str
    root: Path
    splits: Mapping[str, Split] = field(hash=False)


def find_layout(root: Path) -> Layout:
    """The layout of a folder, told by the annotation files that are there; those of one split are enough.

    Raises:
        FileNotFoundError: it is in none of the layouts; the message has the remedy, if one is known.
        InputError: several files of VIA lie side by side.
    """
    if layout := _layout(root):
        return layout
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: {_no_folder(root)}")
    if remedy := _remedy(root):
        raise FileNotFoundError(f"{root}: {remedy}")
    layouts = ", ".join(f"`{name}` ({_described(places)})" for name, places in LAYOUTS.items())
    raise FileNotFoundError(
        f"{root / LAYOUTS['custom'][TRAIN].annotations[0]}: no such file, nor annotations of another layout; a dataset "
        f"of your own lies in one folder as {layouts}; tools/split_coco.py makes the first of one annotation file; "
        f"{root} {_content(root)}"
    )


def _layout(root: Path) -> Layout | None:
    for name, places in LAYOUTS.items():
        splits = {split: _split(root, place, is_via=name == "via") for split, place in places.items()}
        if any(_is_there(split.annotations) for split in splits.values()):
            return Layout(name, root, splits)
    return None


def file_state(path: Path) -> tuple[int, int]:
    """Time of the last change, and size in bytes: a file where both are the same need not be read again."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def via_entries(content: Any) -> list[Mapping]:
    """The entries of the pictures in annotations of VIA; none in other content."""
    content = content.get("_via_img_metadata", content) if isinstance(content, dict) else {}
    values = content.values() if isinstance(content, dict) else []
    return [entry for entry in values if isinstance(entry, dict) and "filename" in entry]


def _split(root: Path, place: Place, *, is_via: bool) -> Split:
    expected = [root / file for file in place.annotations]
    annotations = next(filter(_is_there, expected), expected[0])
    if is_via and not annotations.is_file():
        annotations = _via_file(annotations.parent) or annotations
    return Split(annotations, tuple(root / folder for folder in place.pictures) or (annotations.parent,))


def _is_there(annotations: Path) -> bool:
    """Panoptic annotations do without those of instances, which they are usually made from."""
    return annotations.is_file() or made_json(annotations).is_file()


def _via_file(folder: Path) -> Path | None:
    """The one JSON file of a folder that is VIA's."""
    paths = sorted(folder.glob("*.json"))
    if len(paths) > MOST_JSON_FILES:
        return None
    found = [path for path in paths if _is_via(path, file_state(path))]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{folder}: {names} are all annotations of VIA; call the one to use via_region_data.json")
    return found[0] if found else None


@lru_cache
def _is_via(path: Path, _state: tuple[int, int]) -> bool:
    return bool(via_entries(read_json(path)))


def _described(places: Mapping[str, Place]) -> str:
    folders = [f"{folder}/" for place in places.values() for folder in place.pictures[:1]]
    return ", ".join([*(place.annotations[0] for place in places.values()), *(folders or ["pictures beside them"])])


def _content(root: Path) -> str:
    """What a folder holds: first its folders, then the JSON files in it and in them."""
    found = [path for visible in ("[!.]*", "[!.]*/[!.]*.json") for path in root.glob(visible)]
    found.sort(key=lambda path: (not path.is_dir(), path.suffix != ".json", path))
    names = [f"{path.relative_to(root)}{'/' * path.is_dir()}" for path in found[:SHOWN]]
    return f"holds {', '.join(names)}{', ...' * (len(found) > SHOWN)}" if names else "is empty"


def _no_folder(root: Path) -> str:
    if not root.exists():
        return "does not exist; give the folder of a dataset"
    if root.suffix == ".json":
        for folder in root.parents[:2]:
            layout = _layout(folder)
            if layout and root in [split.annotations for split in layout.splits.values()]:
                return f"is a file of a dataset; give the folder of it, {folder}"
        return f"is a file; {_split_command(root, root.parent, root.parent)} makes a dataset of it"
    return "is a file, not the folder of a dataset"


def _remedy(root: Path) -> str:
    """What to do with a folder in another format, or whose annotation files have other names; "" if it is neither."""
    paths = sorted(path for pattern in ("*.json", "annotations/*.json") for path in root.glob(pattern))
    found = [path for path in paths[:MOST_JSON_FILES] if _has_objects(path)]
    if len(found) == 1:
        folders = (root / name for name in ("images/default", "images", "."))
        pictures = next((folder for folder in folders if _has_pictures(folder)), root / "PICTURES")
        return f"has one annotation file for all pictures; share them out: {_split_command(found[0], pictures, root)}"
    if found:
        names, (train, val) = ", ".join(str(path.relative_to(root)) for path in found), LAYOUTS["coco"].values()
        return (
            f"has several files in COCO format ({names}); call the one to train on {train.annotations[1]}, the one to "
            f"validate with {val.annotations[1]}, and the folders of their pictures {train.pictures[1]}/ and "
            f"{val.pictures[1]}/"
        )
    for of_format, patterns in OTHER_FORMATS.items():
        if any(next(root.glob(pattern), None) for pattern in patterns):
            return f"looks like {of_format}; export it in COCO format where it was annotated, or convert it"
    return ""


def _has_objects(path: Path) -> bool:
    """Whether a file is in COCO format, with objects."""
    try:
        content = read_json(path)
    except InputError:
        return False
    annotations = content.get("annotations") if isinstance(content, dict) and "images" in content else None
    return isinstance(annotations, list) and all(isinstance(entry, dict) and "bbox" in entry for entry in annotations)


def _split_command(annotations: Path, pictures: Path, root: Path) -> str:
    options = "--pictures", str(pictures), "--output", str(root / "split")
    return shlex.join(["python", "tools/split_coco.py", str(annotations), *options])


def _has_pictures(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())
