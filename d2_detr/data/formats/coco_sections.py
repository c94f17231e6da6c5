"""The sections of COCO's instance and panoptic files: categories and images."""

from __future__ import annotations

import math
import reprlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from d2_detr.data.formats.file_names import image_path
from d2_detr.data.images import image_size, size_problem
from d2_detr.utils.errors import InputError, error_context

SECTIONS = ("images", "annotations", "categories")
MAX_NUMBER = 1e9  # larger than any coordinate in pixels; JSON integers may be too large for a float
MAX_ID = 2**63 - 1
NUMBER_TYPES = {int, float}

Entry = dict[str, Any]

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60


def shown(value: object) -> str:
    """Return a JSON value in Python's notation for a message; of a long or deeply nested one, a part."""
    return _short.repr(value)


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a JSON value is a number from -1e9 to 1e9, and not NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def all_numbers(values: Sequence[object]) -> bool:
    """Return whether `is_number` holds for all values, without a call for each."""
    if not values or not set(map(type, values)) <= NUMBER_TYPES:
        return all(map(is_number, values))
    numbers: Sequence[Any] = values
    # Comparisons overlook NaN, but a sum does not.
    return min(numbers) >= -MAX_NUMBER and max(numbers) <= MAX_NUMBER and not math.isnan(sum(numbers))


def is_box(value: object) -> TypeGuard[list[float]]:
    """Return whether a JSON value is a list of four numbers."""
    return isinstance(value, list) and len(value) == 4 and all_numbers(value)


def parse_id(value: object) -> int | str | None:
    """Return an id as an integer of 64 bits if possible, or as text; None if it is neither."""
    if type(value) is int:  # most ids; bool is another type
        return value if abs(value) <= MAX_ID else None
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_ID:
        return int(value)
    if isinstance(value, str) and value.isdecimal() and len(value) < 20 and int(value) <= MAX_ID:
        return int(value)
    return value if isinstance(value, str) and value != "" else None


def expected_id(value: object, kind: str) -> str:
    """Return what an id should be that is not of this kind, for messages."""
    if isinstance(value, int | float) and abs(value) > MAX_ID:
        return f"expected {kind} of at most 64 bits; number the entries anew"
    return f"expected {kind}"


def is_unicode(text: str) -> bool:
    """Return whether a text can be written: JSON may have one half of a character of two codes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_sections(path: Path, content: object) -> dict[str, list[Entry]]:
    """Return COCO's sections in the content of a file.

    Args:
        path: the file, for messages.

    Raises:
        InputError: a section is missing or not a list of objects, or there are no images or categories.
    """
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not COCO's format with {', '.join(SECTIONS)}")
    for section in SECTIONS:
        if not isinstance(content.get(section), list):
            keys = ", ".join(map(str, list(content)[:5])) or "none"
            raise InputError(f"{path}: no list {section!r}, so not COCO's format; its keys are {keys}")
        for i, entry in enumerate(content[section]):
            if not isinstance(entry, dict):
                raise InputError(f"{path}: {section}[{i}] is of type {type(entry).__name__}, expected an object")
    if empty := [section for section in ("images", "categories") if not content[section]]:
        raise InputError(f"{path}: the list {empty[0]!r} is empty")
    return content


def parse_categories(path: Path, entries: Sequence[Entry]) -> dict[int, str]:
    """Return category names by id, in the order of the ids.

    Args:
        path: the file, for messages.
        entries: the section "categories".

    Raises:
        InputError: an id or a name is missing or not unique.
    """
    categories: dict[int, str] = {}
    for i, entry in enumerate(entries):
        category_id = parse_id(entry.get("id"))
        if not isinstance(category_id, int):
            expected = expected_id(entry.get("id"), "a number")
            raise InputError(f"{path}: categories[{i}]: id {shown(entry.get('id'))}, {expected}")
        if category_id in categories:
            raise InputError(f"{path}: categories[{i}]: duplicate id {category_id}; give each category its own")
        if not isinstance(entry.get("name"), str):
            raise InputError(f"{path}: categories[{i}] (id {category_id}): no `name`")
        if not is_unicode(entry["name"]):
            raise InputError(
                f"{path}: categories[{i}] (id {category_id}): name {entry['name']!r:.60} is no valid Unicode"
            )
        categories[category_id] = entry["name"]
    name, count = Counter(categories.values()).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: two categories are named {name!r}; merge them or rename one")
    return dict(sorted(categories.items()))


def parse_images(
    path: Path, entries: Sequence[Entry], image_root: Path | None = None, root: Path | None = None
) -> list[Entry]:
    """Return the images with parsed `id`, and with `width` and `height` in pixels.

    Args:
        path: the file, for messages.
        entries: the section "images".
        image_root: folder of the images; sizes that the entries lack are read from there.
        root: the folder that those images must not leave (see image_path).

    Raises:
        FileNotFoundError: an image whose size is needed does not exist.
        InputError: an id, a file name or a size is missing or invalid, or an id is not unique.
    """
    images, seen = [], set()
    for i, entry in enumerate(entries):
        image_id, file_name = parse_id(entry.get("id")), entry.get("file_name")
        if image_id is None:
            expected = expected_id(entry.get("id"), "a number or text")
            raise InputError(f"{path}: images[{i}]: id is {shown(entry.get('id'))}, {expected}")
        if not isinstance(file_name, str) or not file_name:
            raise InputError(f"{path}: images[{i}] (id {image_id}): file_name is {shown(file_name)}, expected text")
        where = f"{path}: images[{i}] ({file_name})"
        if image_id in seen:
            raise InputError(f"{where}: duplicate id {image_id}; give each image its own")
        seen.add(image_id)
        size_wh = entry.get("width"), entry.get("height")
        if image_root and None in size_wh:
            with error_context(where):
                size_wh = image_size(image_path(image_root, file_name, root))
        width, height = map(parse_id, size_wh)
        if not (isinstance(width, int) and isinstance(height, int) and min(width, height) > 0):
            raise InputError(f"{where}: width {shown(size_wh[0])}, height {shown(size_wh[1])}; expected pixels")
        if problem := size_problem(width, height):
            raise InputError(f"{where}: {problem}")
        images.append(entry | {"id": image_id, "width": width, "height": height})
    return images
