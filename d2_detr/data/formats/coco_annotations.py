"""Checks of the annotations of a COCO file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pycocotools.mask as mask_util

from d2_detr.data.formats.coco_sections import Entry, is_box, is_number, parse_id, shown
from d2_detr.data.formats.coco_segmentations import SizeWH, segmentation_problem
from d2_detr.structures.masks import to_rle
from d2_detr.utils.errors import InputError

MAX_PROBLEMS_SHOWN = 5
ROUNDING = 2  # pixels by which the sides of a box may be too short for its `area`, if both corners were rounded


@dataclass
class BoxFormat:
    """What tells whether the boxes of a file are corners or fractions instead of [x, y, width, height] in pixels.

    Attributes:
        num_boxes: number of boxes.
        are_corners: all of them are valid corners.
        num_out_of_bounds: those that are out of bounds if they are not corners.
        are_fractions: all of their numbers are at most 1.
        are_whole: all of their numbers are integers.
    """

    num_boxes: int = 0
    are_corners: bool = True
    num_out_of_bounds: int = 0
    are_fractions: bool = True
    are_whole: bool = True

    def add(self, box: Sequence[float], size_wh: SizeWH) -> None:
        """Count a box."""
        x, y, w, h = box
        width, height = size_wh
        self.num_boxes += 1
        # Once the boxes of a file cannot be corners or fractions, there is nothing more to find out.
        if self.are_corners:
            self.are_corners = w >= x and h >= y and w <= width + 1 and h <= height + 1
            self.num_out_of_bounds += x + w > width + 1 or y + h > height + 1
        if self.are_fractions:
            self.are_fractions = max(box) <= 1
            self.are_whole = self.are_whole and not any(number % 1 for number in box)

    def merge(self, other: BoxFormat) -> None:
        """Count the boxes of another part of the same file."""
        self.num_boxes += other.num_boxes
        self.are_corners = self.are_corners and other.are_corners
        self.num_out_of_bounds += other.num_out_of_bounds
        self.are_fractions = self.are_fractions and other.are_fractions
        self.are_whole = self.are_whole and other.are_whole

    def check(self, path: Path, num_annotations: int) -> None:
        """Check that the boxes are neither corners nor fractions.

        Raises:
            InputError: they are.
        """
        if not self.num_boxes or self.num_boxes < num_annotations / 2:
            return
        # Boxes are taken for corners if all of them are valid corners, and a quarter is out of bounds if they are not.
        if self.are_corners and self.num_out_of_bounds > self.num_boxes / 4:
            raise InputError(
                f"{path}: the boxes look like corners [x0, y0, x1, y1]; COCO's `bbox` is [x, y, width, height]. "
                "Subtract x0 and y0 from the last two numbers"
            )
        if self.are_fractions and not self.are_whole:
            raise InputError(
                f"{path}: the boxes look like fractions of the image, from 0 to 1; COCO's `bbox` is in pixels. "
                "Multiply x and width by the width of the image, y and height by its height"
            )


@dataclass
class AnnotationChecker:
    """Check annotations one by one, and collect what is wrong with them.

    Attributes:
        sizes_wh: width and height in pixels of each image, by its id.
        categories: names by id.
        strict: an annotation that cannot be trained on is a problem.
        problems: error messages.
        dropped: a message for each annotation that cannot be trained on.
        corrected: a message for each accepted annotation whose `area` is impossible.
        box_format: of all boxes that are four numbers.
    """

    sizes_wh: Mapping[int | str | None, SizeWH]
    categories: Mapping[int, str]
    strict: bool = False
    problems: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    corrected: list[str] = field(default_factory=list)
    box_format: BoxFormat = field(default_factory=BoxFormat)

    def accept(self, index: int, entry: Entry) -> bool:
        """Return whether an annotation can be trained on.

        Args:
            index: its place in the file, from 0.
        """
        size_wh = self.sizes_wh.get(parse_id(entry.get("image_id")))
        if problem := (
            self._reference_problem(entry, size_wh)
            or box_problem(entry.get("bbox"))
            or crowd_problem(entry.get("iscrowd", 0))
        ):
            self.problems.append(f"{_place(index, entry)}: {problem}")
            return False
        assert size_wh  # else its reference is a problem
        box = entry["bbox"]
        self.box_format.add(box, size_wh)
        if defect := _box_defect(box, size_wh):
            self.dropped.append(f"{_place(index, entry)}: bbox {box} {defect}")
            if self.strict:
                self.problems.append(f"{self.dropped[-1]}; correct it or remove the annotation")
            return False
        if problem := segmentation_problem(entry.get("segmentation"), size_wh):
            self.problems.append(f"{_place(index, entry)}: {problem}")
            return False
        if defect := _area_defect(entry):
            self.corrected.append(f"{_place(index, entry)}: {defect}")
        return True

    def normalized(self, entry: Entry, annotation_id: int) -> Entry:
        """Return an accepted annotation with another id, and with all fields that COCO prescribes.

        An `area` that is missing or impossible is replaced by that of the mask, or of the box if there is no mask.
        """
        image_id = parse_id(entry["image_id"])
        area = entry.get("area")
        if area is None or _area_defect(entry):
            area = _mask_area(entry.get("segmentation"), self.sizes_wh[image_id]) or entry["bbox"][2] * entry["bbox"][3]
        return entry | {
            "id": annotation_id,
            "image_id": image_id,
            "category_id": parse_id(entry["category_id"]),
            "iscrowd": int(entry.get("iscrowd", 0)),
            "area": area,
        }

    def check(self, path: Path, num_annotations: int) -> None:
        """Check that there were no problems.

        Raises:
            InputError: there were; the message has the first ones, and counts the others.
        """
        self.box_format.check(path, num_annotations)
        if not self.problems:
            return
        lines = [f"{path}: {self.problems[0]}", *self.problems[1:MAX_PROBLEMS_SHOWN]]
        if len(self.problems) > MAX_PROBLEMS_SHOWN:
            lines.append(f"and {len(self.problems) - MAX_PROBLEMS_SHOWN} more annotations with errors")
        raise InputError("\n  ".join(lines))

    def _reference_problem(self, entry: Entry, size_wh: SizeWH | None) -> str:
        """Return which reference of an annotation is invalid and what to do, or ""."""
        if size_wh is None:
            image_id = shown(entry.get("image_id"))
            return f"image_id {image_id} is not among the images; add the image or remove the annotation"
        if parse_id(entry.get("category_id")) not in self.categories:
            known = ", ".join(f"{i} ({name})" for i, name in list(self.categories.items())[:10])
            return f"unknown category_id {shown(entry.get('category_id'))}; the file's categories are {known}"
        return ""


def annotation_warning(
    path: Path, num_annotations: int, num_dropped: int, num_corrected: int, checker: AnnotationChecker
) -> str:
    """Return a warning about annotations that cannot be trained on, or whose area is replaced, or "".

    Args:
        checker: has the messages about the first of them.
    """
    warnings = []
    if num_dropped:
        warnings.append(
            f"{path}: {num_dropped} of {num_annotations} annotations are dropped because they cannot be trained on, "
            f"first {checker.dropped[0]}; set DATASETS.STRICT (--strict) to make this an error"
        )
    if num_corrected:
        warnings.append(
            f"{path}: {num_corrected} of {num_annotations} annotations have an impossible `area`, which AP of small, "
            f"medium and large objects depends on; it is computed from the mask or the box instead. First "
            f"{checker.corrected[0]}"
        )
    return "\n".join(warnings)


def crowd_problem(value: object) -> str:
    """Return why an `iscrowd` cannot be understood, or ""."""
    if isinstance(value, int | float) and value in (0, 1):
        return ""
    return f"iscrowd {shown(value)}, expected 0 for an object or 1 for a crowd"


def _place(index: int, entry: Entry) -> str:
    return f"annotations[{index}]" + (f" (id {shown(entry['id'])})" if "id" in entry else "")


def box_problem(box: object) -> str:
    """Return why a `bbox` cannot be understood, or ""."""
    if not is_box(box):
        return f"bbox {shown(box)}, expected four numbers [x, y, width, height]"
    if min(box[2:]) < 0:
        return f"bbox {box} has a negative side; expected [x, y, width, height], where x, y is the upper left corner"
    return ""


def _box_defect(box: Sequence[float], size_wh: SizeWH) -> str:
    """Return why a valid box cannot be trained on, or ""."""
    for name, side in (("width", box[2]), ("height", box[3])):
        if side < 1:
            return f"has a {name} of less than a pixel" if side else f"has zero {name}"
    return outside_defect(box, size_wh)


def outside_defect(box: Sequence[float], size_wh: SizeWH) -> str:
    """Return that a valid box is entirely outside its image, or ""."""
    x, y, width, height = box
    if x >= size_wh[0] or y >= size_wh[1] or x + width <= 0 or y + height <= 0:
        return f"is outside the image of {size_wh[0]} x {size_wh[1]} pixels"
    return ""


def _area_defect(entry: Entry) -> str:
    """Return why the `area` of an annotation is impossible, or ""."""
    area, (*_, width, height) = entry.get("area"), entry["bbox"]
    if area is None or (is_number(area) and 0 < area <= (width + ROUNDING) * (height + ROUNDING)):
        return ""
    return f"area {shown(area)} with a box of {width:g} x {height:g} pixels"


def _mask_area(segmentation: Any, size_wh: SizeWH) -> int:
    """Return the number of pixels of a mask; 0 if there is none."""
    return int(mask_util.area(to_rle(segmentation, size_wh[::-1]))) if segmentation else 0
