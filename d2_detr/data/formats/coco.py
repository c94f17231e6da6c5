"""Annotation files in COCO format: read, checked as a whole, and put into Detectron2's form.

Accepted are the dialects that people's tools write: ids as numbers or strings of digits, category ids from 0, from 1 or
with gaps, annotation id 0 (which pycocotools takes for "no match") or none at all, no width and height.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2_detr.data.images import image_size
from d2_detr.structures.masks import to_rle
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import read_json

from detectron2.structures import BoxMode

PROBLEMS_SHOWN = 5
SECTIONS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class CocoFile:
    """A checked annotation file: ids are integers, annotations are numbered from 1, every reference holds.

    `images`, `annotations`: the entries of the file, boxes in [x, y, width, height] pixels. `categories`: id -> name.
    """

    path: Path
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: dict[int, str]

    def as_json(self, categories: Mapping[int, str] | None = None) -> dict[str, Any]:
        """What pycocotools reads without mistakes; `categories` are those of the whole dataset."""
        named = (categories or self.categories).items()
        return {
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": category_id, "name": name} for category_id, name in named],
        }

    def dataset_dicts(self, image_root: str | Path, contiguous_ids: Mapping[int, int]) -> list[dict[str, Any]]:
        """Detectron2's dicts, in the order of the file."""
        per_image: dict[int | str, list[dict]] = {image["id"]: [] for image in self.images}
        for annotation in self.annotations:
            instance = {
                "bbox": annotation["bbox"],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": contiguous_ids[annotation["category_id"]],
                "iscrowd": annotation["iscrowd"],
            }
            if segmentation := annotation.get("segmentation"):
                # Detectron2 expects polygons as they are, and the counts of an RLE in a string.
                polygons = isinstance(segmentation, list)
                instance["segmentation"] = segmentation if polygons else to_rle(segmentation, segmentation["size"])
            per_image[annotation["image_id"]].append(instance)
        return [
            {
                "file_name": str(Path(image_root) / image["file_name"]),
                "height": image["height"],
                "width": image["width"],
                "image_id": image["id"],
                "annotations": per_image[image["id"]],
            }
            for image in self.images
        ]


def read_coco(path: str | Path, image_root: str | Path, *, source: Path | None = None) -> CocoFile:
    """Read and check an annotation file.

    Args:
        image_root: folder of the pictures; it is asked for sizes that the file does not give.
        source: the person's own file, which messages name, where this one was made of it.

    Raises:
        FileNotFoundError, InputError: no such file, not JSON, not COCO's format, or entries that cannot be right. The
            message names the first of them by file, entry and field, and counts the others.
    """
    content = read_json(path)
    path = source or Path(path)
    _check_sections(path, content)
    categories = _categories(path, content["categories"])
    images = _images(path, content["images"], Path(image_root))
    sizes_wh = {image["id"]: (image["width"], image["height"]) for image in images}
    annotations, problems = [], []
    for number, entry in enumerate(content["annotations"]):
        problem = _problem(entry, sizes_wh, categories)
        if problem:
            problems.append(f"annotations[{number}]{_told_id(entry)}: {problem}")
        else:
            annotations.append(_normalised(entry, len(annotations) + 1))
    if _boxes_are_corners(annotations, content["annotations"], sizes_wh):
        raise InputError(
            f"{path}: the boxes look like corners [x0, y0, x1, y1]; COCO's `bbox` is [x, y, width, height]. "
            "Subtract x0 and y0 from the last two numbers"
        )
    if _boxes_are_shares(annotations):
        raise InputError(
            f"{path}: the boxes look like shares of the picture, from 0 to 1; COCO's `bbox` is in pixels. Multiply its "
            "numbers by the width and the height of the picture"
        )
    if problems:
        raise InputError(_listed(path, problems))
    return CocoFile(path, images, annotations, categories)


def _check_sections(path: Path, content: object) -> None:
    if isinstance(content, dict) and ("_via_img_metadata" in content or _is_via(content)):
        raise InputError(f"{path}: annotations of VIA, not COCO's; convert them with tools/via_to_coco.py")
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not COCO's format with {', '.join(SECTIONS)}")
    for section in SECTIONS:
        if not isinstance(content.get(section), list):
            found = ", ".join(map(str, list(content)[:5])) or "nothing"
            raise InputError(f"{path}: no list {section!r}, so not COCO's format; found {found}")
        for number, entry in enumerate(content[section]):
            if not isinstance(entry, dict):
                raise InputError(f"{path}: {section}[{number}] is a {type(entry).__name__}, expected an object")
    if not content["images"] or not content["categories"]:
        raise InputError(f"{path}: without {'images' if not content['images'] else 'categories'}")


def _is_via(content: dict) -> bool:
    first = next(iter(content.values()), None)
    return isinstance(first, dict) and "filename" in first and "regions" in first


def _categories(path: Path, entries: list[dict]) -> dict[int, str]:
    """Names by id, in the order of the ids."""
    categories: dict[int, str] = {}
    for number, entry in enumerate(entries):
        category_id = as_id(entry.get("id"))
        if not isinstance(category_id, int):
            raise InputError(f"{path}: categories[{number}]: id {entry.get('id')!r}, expected a number")
        if category_id in categories:
            raise InputError(f"{path}: categories[{number}]: id {category_id} for a second time; give each its own")
        if not isinstance(entry.get("name"), str):
            raise InputError(f"{path}: categories[{number}] (id {category_id}): no `name`")
        categories[category_id] = entry["name"]
    if twice := [name for name, count in Counter(categories.values()).items() if count > 1]:
        raise InputError(f"{path}: two categories are called {twice[0]!r}; merge them or give each its own name")
    return dict(sorted(categories.items()))


def _images(path: Path, entries: list[dict], image_root: Path) -> list[dict[str, Any]]:
    images, seen = [], set()
    for number, entry in enumerate(entries):
        image_id, file_name = as_id(entry.get("id")), entry.get("file_name")
        if image_id is None or not isinstance(file_name, str):
            field = "id" if image_id is None else "file_name"
            raise InputError(f"{path}: images[{number}]: {field} is {entry.get(field)!r}")
        if image_id in seen:
            raise InputError(f"{path}: images[{number}] ({file_name}): id {image_id} for a second time")
        seen.add(image_id)
        width, height = entry.get("width"), entry.get("height")
        if width is None or height is None:
            width, height = image_size(image_root / file_name)
        if not all(_is_number(side) and side > 0 for side in (width, height)):
            raise InputError(f"{path}: images[{number}] ({file_name}): width {width!r}, height {height!r}")
        images.append(entry | {"id": image_id, "width": int(width), "height": int(height)})
    return images


def as_id(value: object) -> int | str | None:
    """An id as a number where it is one, also in a string of digits; None for what is no id."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value:
        return int(value) if value.isdecimal() else value
    return None


def _problem(entry: dict, sizes_wh: Mapping[int | str, tuple[int, int]], categories: Mapping[int, str]) -> str:
    """What is wrong with an annotation, and the remedy; "" for nothing."""
    image_id, category_id = as_id(entry.get("image_id")), as_id(entry.get("category_id"))
    if image_id not in sizes_wh:
        return f"image_id {entry.get('image_id')!r} is not among the images; add the picture or remove the annotation"
    if category_id not in categories:
        known = ", ".join(f"{i} ({name})" for i, name in list(categories.items())[:10])
        return f"unknown category_id {entry.get('category_id')!r}; the file's categories are {known}"
    size_wh = sizes_wh[image_id]
    return _box_problem(entry.get("bbox"), size_wh) or _segmentation_problem(entry.get("segmentation"), size_wh)


def _box_problem(box: object, size_wh: tuple[int, int]) -> str:
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return f"bbox {box!r:.60}, expected four numbers [x, y, width, height]"
    x, y, width, height = box
    if width < 0 or height < 0:
        return f"bbox {box} has a negative side; it is [x, y, width, height] with x, y the upper left corner"
    if width == 0 or height == 0:
        return f"bbox {box} has no area; draw it anew or remove the annotation"
    if x >= size_wh[0] or y >= size_wh[1] or x + width <= 0 or y + height <= 0:
        return (
            f"bbox {box} lies outside of the picture, which is {size_wh[0]} x {size_wh[1]} by its entry in `images`; "
            "correct the one or the other, or remove the annotation"
        )
    return ""


def _segmentation_problem(segmentation: object, size_wh: tuple[int, int]) -> str:
    if not segmentation:
        return ""
    if isinstance(segmentation, dict):
        rle_hw = segmentation.get("size")
        if not isinstance(segmentation.get("counts"), str | list) or rle_hw != [size_wh[1], size_wh[0]]:
            return f"segmentation is an RLE of size {rle_hw}, the picture is {size_wh[1]} high and {size_wh[0]} wide"
        return ""
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        return f"segmentation {segmentation!r:.60}, expected a list of polygons [[x0, y0, x1, y1, ...], ...] or an RLE"
    for polygon in segmentation:
        if not all(map(_is_number, polygon)) or len(polygon) % 2:
            return f"segmentation has the polygon {polygon!r:.60}, expected pairs of numbers x, y"
        if len(polygon) < 6:
            return f"segmentation has a polygon of {len(polygon) // 2} points; three make the smallest"
        x, y = polygon[0::2], polygon[1::2]
        if min(x) >= size_wh[0] or min(y) >= size_wh[1] or max(x) <= 0 or max(y) <= 0:
            return f"segmentation has a polygon outside of the picture, which is {size_wh[0]} x {size_wh[1]}"
    return ""


def _normalised(entry: dict, annotation_id: int) -> dict[str, Any]:
    ids = {key: as_id(entry[key]) for key in ("image_id", "category_id")}
    area = entry.get("area")
    return entry | ids | {
        "id": annotation_id,
        "iscrowd": int(bool(entry.get("iscrowd", 0))),
        "area": area if _is_number(area) else entry["bbox"][2] * entry["bbox"][3],
    }  # fmt: skip


def _boxes_are_corners(
    good: list[dict], all_entries: list[dict], sizes_wh: Mapping[int | str, tuple[int, int]]
) -> bool:
    """Whether the boxes of a file make sense as [x0, y0, x1, y1] alone.

    All of them would fit their pictures so, and more than a quarter sticks out of it as [x, y, width, height].
    """
    boxes = [(entry["bbox"], *sizes_wh[entry["image_id"]]) for entry in good]
    if not boxes or len(good) < len(all_entries) / 2:
        return False
    corners = all(w > x and h > y and w <= width + 1 and h <= height + 1 for (x, y, w, h), width, height in boxes)
    sticking_out = sum(x + w > width + 1 or y + h > height + 1 for (x, y, w, h), width, height in boxes)
    return corners and sticking_out > len(boxes) / 4


def _boxes_are_shares(annotations: list[dict]) -> bool:
    numbers = [number for entry in annotations for number in entry["bbox"]]
    return max(numbers, default=2) <= 1 and any(number % 1 for number in numbers)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _told_id(entry: dict) -> str:
    return f" (id {entry['id']})" if "id" in entry else ""


def _listed(path: Path, problems: list[str]) -> str:
    return "\n  ".join([f"{path}: {problems[0]}", *_more(problems)])


def _more(problems: list[str]) -> Iterator[str]:
    yield from problems[1:PROBLEMS_SHOWN]
    if len(problems) > PROBLEMS_SHOWN:
        yield f"and {len(problems) - PROBLEMS_SHOWN} more annotations with something wrong"
