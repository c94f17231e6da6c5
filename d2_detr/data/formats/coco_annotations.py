"""Checks of the annotations of a COCO file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from d2_detr.data.formats.coco_sections import Entry, all_numbers, is_box, is_number, parse_id
from d2_detr.utils.errors import InputError

MAX_PROBLEMS_SHOWN = 5

SizeWH = tuple[int, int]


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
        box_format: of all boxes that are four numbers.
    """

    sizes_wh: Mapping[int | str | None, SizeWH]
    categories: Mapping[int, str]
    strict: bool = False
    problems: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    box_format: BoxFormat = field(default_factory=BoxFormat)

    def accept(self, index: int, entry: Entry) -> bool:
        """Return whether an annotation can be trained on.

        Args:
            index: its place in the file, from 0.
        """
        size_wh = self.sizes_wh.get(parse_id(entry.get("image_id")))
        if problem := self._reference_problem(entry, size_wh) or _box_problem(entry.get("bbox")):
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
        if problem := _segmentation_problem(entry.get("segmentation"), size_wh):
            self.problems.append(f"{_place(index, entry)}: {problem}")
            return False
        return True

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
            return f"image_id {entry.get('image_id')!r} is not among the images; add the image or remove the annotation"
        if parse_id(entry.get("category_id")) not in self.categories:
            known = ", ".join(f"{i} ({name})" for i, name in list(self.categories.items())[:10])
            return f"unknown category_id {entry.get('category_id')!r}; the file's categories are {known}"
        return ""


def normalized(entry: Entry, annotation_id: int) -> Entry:
    """Return an accepted annotation with another id, and with all fields that COCO prescribes."""
    area = entry.get("area")
    return entry | {
        "id": annotation_id,
        "image_id": parse_id(entry["image_id"]),
        "category_id": parse_id(entry["category_id"]),
        "iscrowd": int(bool(entry.get("iscrowd", 0))),
        "area": area if is_number(area) else entry["bbox"][2] * entry["bbox"][3],
    }


def dropped_warning(path: Path, num_annotations: int, num_dropped: int, first: str) -> str:
    """Return a warning about annotations that cannot be trained on.

    Args:
        first: the message of an AnnotationChecker about the first of them.
    """
    return (
        f"{path}: {num_dropped} of {num_annotations} annotations are dropped because they cannot be trained on, first "
        f"{first}; set DATASETS.STRICT (--strict) to make this an error"
    )


def _place(index: int, entry: Entry) -> str:
    return f"annotations[{index}]" + (f" (id {entry['id']})" if "id" in entry else "")


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
        if not all_numbers(polygon) or len(polygon) % 2:
            return f"segmentation has the polygon {polygon!r:.60}, expected pairs of numbers x, y"
        if len(polygon) < 6:
            return f"segmentation has a polygon of {len(polygon) // 2} points; expected three or more"
        if 0 < polygon[0] < size_wh[0] and 0 < polygon[1] < size_wh[1]:
            continue  # its first point is inside
        x, y = polygon[0::2], polygon[1::2]
        if min(x) >= size_wh[0] or min(y) >= size_wh[1] or max(x) <= 0 or max(y) <= 0:
            return f"segmentation has a polygon outside the image of {size_wh[0]} x {size_wh[1]} pixels; remove it"
    return ""
