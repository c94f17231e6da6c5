"""Annotation files in COCO format, for Detectron2's dataset dicts.

A file is checked as a whole. The dialects of common annotation tools are accepted: ids as numbers or as strings of
digits; category ids from 0, from 1 or with gaps; annotations without id, or with id 0, which pycocotools takes for "no
match"; images without size.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2_detr.data.formats.coco_sections import (
    Entry,
    is_box,
    is_number,
    parse_categories,
    parse_id,
    parse_images,
    parse_sections,
)
from d2_detr.data.formats.via import is_via
from d2_detr.structures.masks import to_rle
from d2_detr.utils.command_line import command
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import read_json

from detectron2.structures import BoxMode

logger = logging.getLogger(__name__)

MAX_PROBLEMS_SHOWN = 5

SizeWH = tuple[int, int]


@dataclass(frozen=True)
class CocoFile:
    """A checked annotation file: ids are parsed, and every reference is valid.

    Attributes:
        path: the file, for messages.
        images: its entries, with `width` and `height` in pixels.
        annotations: its entries, with ids from 1 and with `bbox` [x, y, width, height] in pixels.
        categories: names by category id, in the order of the ids.
    """

    path: Path
    images: list[Entry]
    annotations: list[Entry]
    categories: dict[int, str]

    def as_json(self, categories: Mapping[int, str] | None = None) -> dict[str, list[Entry]]:
        """Return the content of a file that pycocotools reads correctly.

        Args:
            categories: those of the whole dataset, if a split has fewer.
        """
        names = self.categories if categories is None else categories
        return {
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": category_id, "name": name} for category_id, name in names.items()],
        }

    def dataset_dicts(self, image_root: str | Path, contiguous_ids: Mapping[int, int]) -> list[dict[str, Any]]:
        """Return Detectron2's dataset dicts, in the order of `images`."""
        per_image: dict[int | str, list[dict[str, Any]]] = {image["id"]: [] for image in self.images}
        for annotation in self.annotations:
            instance = {
                "bbox": annotation["bbox"],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": contiguous_ids[annotation["category_id"]],
                "iscrowd": annotation["iscrowd"],
            }
            if segmentation := annotation.get("segmentation"):
                # Detectron2 expects polygons unchanged and RLEs compressed.
                is_rle = isinstance(segmentation, dict)
                instance["segmentation"] = to_rle(segmentation, segmentation["size"]) if is_rle else segmentation
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


def read_coco(path: str | Path, image_root: str | Path, *, strict: bool = False) -> CocoFile:
    """Read and check an annotation file.

    Args:
        image_root: folder of the images; sizes that the file lacks are read from there.
        strict: see `parse_coco`.

    Raises:
        FileNotFoundError: the file, or an image whose size is needed, does not exist.
        InputError: the file is not JSON, or see `parse_coco`.
    """
    return parse_coco(read_json(path), image_root, source=path, strict=strict)


def parse_coco(content: object, image_root: str | Path, *, source: str | Path, strict: bool = False) -> CocoFile:
    """Check the content of an annotation file.

    Annotations that cannot be trained on are dropped with a warning: boxes that are less than a pixel wide or high, or
    entirely outside the image.

    Args:
        image_root: folder of the images; sizes that the content lacks are read from there.
        source: the file, for messages.
        strict: raise InputError instead of dropping annotations.

    Raises:
        FileNotFoundError: an image whose size is needed does not exist.
        InputError: the content is not in COCO format, or has invalid entries; the message names the first ones by file,
            entry and field, and counts the others.
    """
    path = Path(source)
    if is_via(content):
        raise InputError(f"{path}: VIA annotations, expected COCO format; convert them: {command('via-to-coco', path)}")
    sections = parse_sections(path, content)
    categories = parse_categories(path, sections["categories"])
    images = parse_images(path, sections["images"], Path(image_root))
    sizes_wh = {image["id"]: (image["width"], image["height"]) for image in images}
    annotations: list[Entry] = []
    boxes: list[tuple[list[float], SizeWH]] = []
    problems, dropped = [], []
    for i, entry in enumerate(sections["annotations"]):
        where = f"annotations[{i}]" + (f" (id {entry['id']})" if "id" in entry else "")
        if problem := _reference_problem(entry, sizes_wh, categories) or _box_problem(entry.get("bbox")):
            problems.append(f"{where}: {problem}")
            continue
        box, size_wh = entry["bbox"], sizes_wh[parse_id(entry["image_id"])]
        boxes.append((box, size_wh))
        if defect := _box_defect(box, size_wh):
            dropped.append(f"{where}: bbox {box} {defect}")
            if strict:
                problems.append(f"{dropped[-1]}; correct it or remove the annotation")
        elif problem := _segmentation_problem(entry.get("segmentation"), size_wh):
            problems.append(f"{where}: {problem}")
        else:
            annotations.append(_normalized(entry, len(annotations) + 1))
    num_annotations = len(sections["annotations"])
    _check_box_format(path, boxes, num_annotations)
    if problems:
        raise InputError(_summary(path, problems))
    if dropped:
        logger.warning(
            "%s: %d of %d annotations are dropped because they cannot be trained on, first %s; set DATASETS.STRICT "
            "(--strict) to make this an error",
            path, len(dropped), num_annotations, dropped[0],
        )  # fmt: skip
    return CocoFile(path, images, annotations, categories)


def _reference_problem(entry: Entry, sizes_wh: Mapping[int | str, SizeWH], categories: Mapping[int, str]) -> str:
    """Return which reference of an annotation is invalid and what to do, or ""."""
    if parse_id(entry.get("image_id")) not in sizes_wh:
        return f"image_id {entry.get('image_id')!r} is not among the images; add the image or remove the annotation"
    if parse_id(entry.get("category_id")) not in categories:
        known = ", ".join(f"{i} ({name})" for i, name in list(categories.items())[:10])
        return f"unknown category_id {entry.get('category_id')!r}; the file's categories are {known}"
    return ""


def _box_problem(box: object) -> str:
    """Return why a `bbox` cannot be understood, or ""."""
    if not is_box(box):
        return f"bbox {box!r:.60}, expected four numbers [x, y, width, height]"
    if min(box[2:]) < 0:
        return f"bbox {box} has a negative side; expected [x, y, width, height], where x, y is the upper left corner"
    return ""


def _box_defect(box: Sequence[float], size_wh: SizeWH) -> str:
    """Return why a valid box cannot be trained on, or ""."""
    x, y, width, height = box
    for name, side in (("width", width), ("height", height)):
        if side < 1:
            return f"has a {name} of less than a pixel" if side else f"has zero {name}"
    if x >= size_wh[0] or y >= size_wh[1] or x + width <= 0 or y + height <= 0:
        return f"is outside the image of {size_wh[0]} x {size_wh[1]} pixels"
    return ""


def _segmentation_problem(segmentation: object, size_wh: SizeWH) -> str:
    """Return what is wrong with a `segmentation` and what is expected, or ""."""
    if not segmentation:
        return ""
    if isinstance(segmentation, dict):
        rle_hw = segmentation.get("size")
        if not isinstance(segmentation.get("counts"), str | list) or rle_hw != [size_wh[1], size_wh[0]]:
            return f"segmentation is an RLE of size {rle_hw}; expected `counts` and [height, width] {[*size_wh[::-1]]}"
        return ""
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        return f"segmentation {segmentation!r:.60}, expected a list of polygons [[x0, y0, x1, y1, ...], ...] or an RLE"
    for polygon in segmentation:
        if not all(map(is_number, polygon)) or len(polygon) % 2:
            return f"segmentation has the polygon {polygon!r:.60}, expected pairs of numbers x, y"
        if len(polygon) < 6:
            return f"segmentation has a polygon of {len(polygon) // 2} points; expected three or more"
        x, y = polygon[0::2], polygon[1::2]
        if min(x) >= size_wh[0] or min(y) >= size_wh[1] or max(x) <= 0 or max(y) <= 0:
            return f"segmentation has a polygon outside the image of {size_wh[0]} x {size_wh[1]} pixels; remove it"
    return ""


def _normalized(entry: Entry, annotation_id: int) -> Entry:
    area = entry.get("area")
    return entry | {
        "id": annotation_id,
        "image_id": parse_id(entry["image_id"]),
        "category_id": parse_id(entry["category_id"]),
        "iscrowd": int(bool(entry.get("iscrowd", 0))),
        "area": area if is_number(area) else entry["bbox"][2] * entry["bbox"][3],
    }


def _check_box_format(path: Path, boxes: Sequence[tuple[list[float], SizeWH]], num_annotations: int) -> None:
    """Check that the boxes of a file are neither corners nor fractions."""
    if not boxes or len(boxes) < num_annotations / 2:
        return
    # Boxes are taken for corners if all of them are valid corners, and a quarter is out of bounds if they are not.
    are_corners = all(
        w >= x and h >= y and w <= width + 1 and h <= height + 1 for (x, y, w, h), (width, height) in boxes
    )
    out_of_bounds = sum(x + w > width + 1 or y + h > height + 1 for (x, y, w, h), (width, height) in boxes)
    if are_corners and out_of_bounds > len(boxes) / 4:
        raise InputError(
            f"{path}: the boxes look like corners [x0, y0, x1, y1]; COCO's `bbox` is [x, y, width, height]. "
            "Subtract x0 and y0 from the last two numbers"
        )
    numbers = [number for box, _ in boxes for number in box]
    if max(numbers) <= 1 and any(number % 1 for number in numbers):
        raise InputError(
            f"{path}: the boxes look like fractions of the image, from 0 to 1; COCO's `bbox` is in pixels. Multiply x "
            "and width by the width of the image, y and height by its height"
        )


def _summary(path: Path, problems: Sequence[str]) -> str:
    lines = [f"{path}: {problems[0]}", *problems[1:MAX_PROBLEMS_SHOWN]]
    if len(problems) > MAX_PROBLEMS_SHOWN:
        lines.append(f"and {len(problems) - MAX_PROBLEMS_SHOWN} more annotations with errors")
    return "\n  ".join(lines)
