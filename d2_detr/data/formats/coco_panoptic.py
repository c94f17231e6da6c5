"""COCO's panoptic format: a JSON file, and a folder with a PNG for each image.

The color of a pixel in the PNG is the id of its segment, R + 256 G + 65536 B; 0 is void, which means no segment. The
JSON file describes the segments; it is read and checked as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from d2_detr.config.keys import PANOPTIC_SUFFIX
from d2_detr.data.formats.coco_annotations import box_problem, crowd_problem, outside_defect
from d2_detr.data.formats.coco_sections import (
    Entry,
    parse_categories,
    parse_id,
    parse_images,
    parse_sections,
    shown,
)
from d2_detr.data.images import read_image
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.command_line import command
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import atomic_write, read_json

VOID = 0
NUM_IDS = 1 << 24  # three bytes of color


class Category(NamedTuple):
    """A class of things, which are counted, or of stuff, one segment per image."""

    name: str
    isthing: bool

    def __str__(self) -> str:
        """Return the quoted name and the kind, for messages."""
        return f"{self.name!r} ({'things' if self.isthing else 'stuff'})"


@dataclass(frozen=True)
class PanopticFile:
    """A checked panoptic file: ids are parsed, and every reference is valid.

    Attributes:
        path: the JSON file, for messages.
        images: its entries by image id.
        annotations: its entries in their order, one per image; every segment has `iscrowd`.
        categories: by category id, in the order of the contiguous ids: things by their ids, then stuff by theirs.
    """

    path: Path
    images: dict[int | str, Entry]
    annotations: list[Entry]
    categories: dict[int, Category]

    @property
    def label_map(self) -> LabelMap:
        """Things and stuff together."""
        return LabelMap(tuple(self.categories), tuple(category.name for category in self.categories.values()))

    def contiguous_ids(self, *, things: bool) -> dict[int, int]:
        """Return the contiguous ids by category id, of the things or of the stuff."""
        ids = self.label_map.contiguous_ids
        return {category_id: i for category_id, i in ids.items() if self.categories[category_id].isthing == things}


def panoptic_json_path(annotation_file: Path) -> Path:
    """Return the path of the panoptic file that is made from an instance file.

    Its PNGs are in the folder of the same name without suffix.
    """
    return annotation_file.with_name(f"{annotation_file.stem}{PANOPTIC_SUFFIX}.json")


def read_panoptic(path: str | Path) -> PanopticFile:
    """Read and check a panoptic JSON file.

    Raises:
        FileNotFoundError: the file does not exist.
        InputError: the file is not JSON, is not in COCO's panoptic format, or has an invalid entry; the message names
            file, entry, field and remedy.
    """
    path = Path(path)
    if not path.is_file():
        stem = path.stem.removesuffix(PANOPTIC_SUFFIX)
        instances = "INSTANCES.json" if stem == path.stem else f"{stem}.json"
        raise FileNotFoundError(
            f"{path}: no such file; make it from instance masks: {command('make-panoptic', path.with_name(instances))}"
        )
    sections = parse_sections(path, read_json(path))
    categories = _categories(path, sections["categories"])
    images = {image["id"]: image for image in parse_images(path, sections["images"])}
    if not sections["annotations"]:
        raise InputError(f"{path}: the list 'annotations' is empty")
    annotations: dict[int | str, Entry] = {}
    for i, entry in enumerate(sections["annotations"]):
        annotation = _annotation(f"{path}: annotations[{i}]", entry, images, categories)
        image_id = annotation["image_id"]
        if image_id in annotations:
            raise InputError(f"{path}: annotations[{i}]: duplicate image_id {image_id}; merge the two entries")
        annotations[image_id] = annotation
    return PanopticFile(path, images, list(annotations.values()), categories)


def _categories(path: Path, entries: list[Entry]) -> dict[int, Category]:
    names, is_thing = parse_categories(path, entries), {}
    for i, entry in enumerate(entries):
        if entry.get("isthing") not in (0, 1):
            raise InputError(
                f"{path}: categories[{i}] ({entry['name']}): isthing {shown(entry.get('isthing'))}, expected 1 for "
                f"things and 0 for stuff; if the file has instances only, run {command('make-panoptic', path)}"
            )
        is_thing[parse_id(entry["id"])] = bool(entry["isthing"])
    return {i: Category(names[i], is_thing[i]) for i in sorted(names, key=lambda i: (not is_thing[i], i))}


def _annotation(where: str, entry: Entry, images: Mapping, categories: Mapping[int, Category]) -> Entry:
    """Check an entry of `annotations`, and parse its ids."""
    image_id, segments = parse_id(entry.get("image_id")), entry.get("segments_info")
    if image_id not in images:
        raise InputError(
            f"{where}: image_id {shown(entry.get('image_id'))} is not among the images; remove the annotation"
        )
    if not isinstance(entry.get("file_name"), str):
        raise InputError(f"{where} (image_id {image_id}): no `file_name` of a PNG")
    where = f"{where} ({entry['file_name']})"
    if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
        raise InputError(f"{where}: no list `segments_info`, so not COCO's panoptic format")
    size_wh = images[image_id]["width"], images[image_id]["height"]
    segments = [
        _segment(f"{where}: segments_info[{i}]", segment, categories, size_wh) for i, segment in enumerate(segments)
    ]
    if len({segment["id"] for segment in segments}) < len(segments):
        raise InputError(f"{where}: two segments have the same id; give each its own")
    return entry | {"image_id": image_id, "segments_info": segments}


def _segment(where: str, segment: Entry, categories: Mapping[int, Category], size_wh: tuple[int, int]) -> Entry:
    """Check an entry of `segments_info`, and parse its ids."""
    segment_id, category_id = parse_id(segment.get("id")), parse_id(segment.get("category_id"))
    if not isinstance(segment_id, int) or not VOID < segment_id < NUM_IDS:
        raise InputError(
            f"{where}: id {shown(segment.get('id'))}, expected the color in the PNG as R + 256 G + 65536 B"
        )
    if category_id not in categories:
        raise InputError(
            f"{where}: unknown category_id {shown(segment.get('category_id'))}; add it to the file's `categories`"
        )
    if problem := box_problem(segment.get("bbox")) or crowd_problem(segment.get("iscrowd", 0)):
        raise InputError(f"{where}: {problem}")
    if defect := outside_defect(segment["bbox"], size_wh):
        raise InputError(f"{where}: bbox {segment['bbox']} {defect}; make or download the file again")
    return segment | {"id": segment_id, "category_id": category_id, "iscrowd": int(segment.get("iscrowd", 0))}


def read_ids(path: str | Path, *, annotated_wh: tuple[int, int] | None = None) -> np.ndarray:
    """Read the segment ids (H, W), int32, of the pixels of a PNG.

    Args:
        annotated_wh: width and height in pixels that the PNG must have.

    Raises:
        FileNotFoundError: the file does not exist.
        InputError: the file is damaged or has another size.
    """
    rgb = read_image(path, annotated_wh=annotated_wh).astype(np.int32)
    return rgb[..., 0] + (rgb[..., 1] << 8) + (rgb[..., 2] << 16)


def write_ids(ids: np.ndarray, path: str | Path) -> None:
    """Write segment ids (H, W), integers in [0, 2**24), as a PNG."""
    rgb = np.stack([ids, ids >> 8, ids >> 16], axis=-1).astype(np.uint8)  # the cast keeps the lowest byte
    with atomic_write(path) as temporary:
        Image.fromarray(rgb).save(temporary, format="PNG")
