"""Files in COCO's panoptic format: a JSON file, read and checked as a whole, and a folder of PNGs, one for a picture.

The colour of a pixel of a PNG is the id of the segment that it belongs to, R + 256 G + 65536 B; 0 is void, that is, no
segment. The JSON file says what the segments are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from d2_detr.data.formats.coco import as_id
from d2_detr.data.images import read_image
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import atomic_write, read_json

VOID = 0
MOST_IDS = 1 << 24  # three bytes of colour
SECTIONS = ("images", "annotations", "categories")
SUFFIX = "_panoptic"  # of what is made from the instances of a file, beside it
REMEDY = "python tools/make_panoptic.py {} makes one from instance masks"


class Category(NamedTuple):
    """A class: of things, which are counted, or of stuff, which has one segment in a picture."""

    name: str
    isthing: bool

    def __str__(self) -> str:
        return f"{self.name!r} ({'things' if self.isthing else 'stuff'})"


@dataclass(frozen=True)
class PanopticFile:
    """A checked panoptic file: ids are integers where they can be, every reference holds.

    `images`: the file's entries by id. `annotations`: the file's entries in its order, one for an image, each segment
    with `iscrowd`. `categories`: by id, in the order of the contiguous ids: things by their ids, then stuff by theirs.
    """

    path: Path
    images: dict[int | str, dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: dict[int, Category]

    @property
    def names(self) -> list[str]:
        return [category.name for category in self.categories.values()]

    def contiguous_ids(self, *, things: bool) -> dict[int, int]:
        """Contiguous ids by category id, of the things or of the stuff."""
        return {
            category_id: i
            for i, (category_id, category) in enumerate(self.categories.items())
            if category.isthing == things
        }


def read_panoptic(path: str | Path) -> PanopticFile:
    """Read and check a panoptic JSON file.

    Raises:
        FileNotFoundError, InputError: no such file, not JSON, not COCO's panoptic format, or an entry that cannot be
            right. The message names file, entry, field and remedy.
    """
    path = Path(path)
    if not path.is_file():
        instances = f"{path.stem.removesuffix(SUFFIX)}.json" if path.stem.endswith(SUFFIX) else "INSTANCES.json"
        raise FileNotFoundError(f"{path}: no such file; {REMEDY.format(path.with_name(instances))}")
    content = read_json(path)
    _check_sections(path, content)
    categories = _categories(path, content["categories"])
    images = _images(path, content["images"])
    annotations, seen = [], set()
    for number, entry in enumerate(content["annotations"]):
        annotation = _annotation(f"{path}: annotations[{number}]", entry, images, categories)
        if annotation["image_id"] in seen:
            raise InputError(f"{path}: annotations[{number}]: image_id {annotation['image_id']} for a second time")
        seen.add(annotation["image_id"])
        annotations.append(annotation)
    return PanopticFile(path, images, annotations, categories)


def _check_sections(path: Path, content: object) -> None:
    for section in SECTIONS:
        entries = content.get(section) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{path}: no list {section!r} of objects, so not COCO's panoptic format")
        if not entries:
            raise InputError(f"{path}: without {section}")


def _categories(path: Path, entries: list[dict]) -> dict[int, Category]:
    categories: dict[int, Category] = {}
    for number, entry in enumerate(entries):
        category_id = as_id(entry.get("id"))
        if not isinstance(category_id, int) or category_id in categories:
            raise InputError(f"{path}: categories[{number}]: id {entry.get('id')!r}, expected a number of its own")
        if not isinstance(entry.get("name"), str):
            raise InputError(f"{path}: categories[{number}] (id {category_id}): no `name`")
        if entry.get("isthing") not in (0, 1):
            raise InputError(
                f"{path}: categories[{number}] ({entry['name']}): isthing {entry.get('isthing')!r}, expected 1 for "
                f"things and 0 for stuff; if the file has instances only, {REMEDY.format(path)}"
            )
        categories[category_id] = Category(entry["name"], bool(entry["isthing"]))
    name, count = Counter(category.name for category in categories.values()).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: two categories are called {name!r}; give each its own name")
    return dict(sorted(categories.items(), key=lambda item: (not item[1].isthing, item[0])))


def _images(path: Path, entries: list[dict]) -> dict[int | str, dict[str, Any]]:
    images: dict[int | str, dict[str, Any]] = {}
    for number, entry in enumerate(entries):
        image_id, file_name = as_id(entry.get("id")), entry.get("file_name")
        if image_id is None or image_id in images or not isinstance(file_name, str):
            raise InputError(
                f"{path}: images[{number}]: id {entry.get('id')!r} and file_name {file_name!r}, expected an id of its "
                "own and the name of a picture"
            )
        sides = [as_id(entry.get(side)) for side in ("width", "height")]
        if not all(isinstance(side, int) and side > 0 for side in sides):
            raise InputError(f"{path}: images[{number}] ({file_name}): width and height are {sides}, expected pixels")
        images[image_id] = entry | {"id": image_id, "width": sides[0], "height": sides[1]}
    return images


def _annotation(where: str, entry: dict, images: Mapping, categories: Mapping[int, Category]) -> dict[str, Any]:
    """An entry with its ids as integers."""
    image_id, segments = as_id(entry.get("image_id")), entry.get("segments_info")
    if image_id not in images:
        raise InputError(f"{where}: image_id {entry.get('image_id')!r} is not among the images; remove the annotation")
    if not isinstance(entry.get("file_name"), str):
        raise InputError(f"{where} (image_id {image_id}): no `file_name` of a PNG")
    where = f"{where} ({entry['file_name']})"
    if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
        raise InputError(f"{where}: no list `segments_info`, so not COCO's panoptic format")
    segments = [_segment(where, number, segment, categories) for number, segment in enumerate(segments)]
    if len({segment["id"] for segment in segments}) < len(segments):
        raise InputError(f"{where}: two segments have the same id; give each its own")
    return entry | {"image_id": image_id, "segments_info": segments}


def _segment(where: str, number: int, segment: dict, categories: Mapping[int, Category]) -> dict[str, Any]:
    where = f"{where}: segments_info[{number}]"
    segment_id, category_id, bbox = as_id(segment.get("id")), as_id(segment.get("category_id")), segment.get("bbox")
    if not isinstance(segment_id, int) or not VOID < segment_id < MOST_IDS:
        raise InputError(f"{where}: id {segment.get('id')!r}, expected the colour in the PNG as R + 256 G + 65536 B")
    if category_id not in categories:
        raise InputError(
            f"{where}: unknown category_id {segment.get('category_id')!r}; add it to the file's `categories`"
        )
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        raise InputError(f"{where}: bbox {bbox!r:.60}, expected four numbers [x, y, width, height]")
    iscrowd = int(bool(segment.get("iscrowd", 0)))
    return segment | {"id": segment_id, "category_id": category_id, "iscrowd": iscrowd}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_ids(path: str | Path, *, annotated_wh: tuple[int, int] | None = None) -> np.ndarray:
    """Segment ids (H, W), int32, of the pixels of a PNG.

    Raises:
        FileNotFoundError, InputError: no such file, damaged, or not of the annotated width and height.
    """
    rgb = read_image(path, annotated_wh=annotated_wh).astype(np.int32)
    return rgb[..., 0] + (rgb[..., 1] << 8) + (rgb[..., 2] << 16)


def write_ids(ids: np.ndarray, path: str | Path) -> None:
    """Write segment ids (H, W), integers in 0..2^24 - 1, as a PNG."""
    rgb = np.stack([ids, ids >> 8, ids >> 16], axis=-1).astype(np.uint8)  # which keeps the lowest byte
    with atomic_write(path) as temporary:
        Image.fromarray(rgb).save(temporary, format="PNG")
