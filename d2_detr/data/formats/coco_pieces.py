"""The list of annotations of a large COCO file, in pieces that can be parsed one by one.

The text is divided without parsing it, at places that look like the end of an annotation. Whether they are shows when
the pieces are parsed: a wrong one leaves a bracket or a quote open, which is an error, and never another result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d2_detr.data.formats.coco_sections import Entry
from d2_detr.structures.records import map_file
from d2_detr.utils.files import parse_json, read_json

START = re.compile(rb'"annotations"\s*:\s*\[\s*(?=\{)')
BETWEEN = re.compile(rb"\}(\s*,\s*)\{")
END = re.compile(rb"\}\s*\]")
PLACEHOLDER = "the annotations, which are parsed in pieces"


class NotDividedError(Exception):
    """A file has an unusual structure and must be parsed as a whole."""


def divide(text: memoryview, piece_size: int) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """Divide the text of a file.

    Args:
        text: of the file.
        piece_size: approximate size of a piece in bytes.

    Returns:
        The content of the file, with an empty list of annotations, and the first byte of each piece and the first one
        after it.

    Raises:
        NotDividedError: there are no annotations, or the file is not as other COCO files are.
    """
    start = START.search(text)
    end = END.search(text, start.end()) if start else None
    if not start or not end:
        raise NotDividedError
    first, last = start.end(), end.start() + 1
    around = b"".join((text[: start.start()], f'"annotations": "{PLACEHOLDER}"'.encode(), text[end.end() :]))
    content = _parse(around)
    if not isinstance(content, dict) or content.get("annotations") != PLACEHOLDER:
        raise NotDividedError
    return content | {"annotations": []}, list(_spans(text, first, last, piece_size))


def read_without_annotations(path: Path) -> Any:
    """Parse a large annotation file; of one that can be divided, all but the annotations.

    Raises:
        FileNotFoundError, InputError: see `read_json`.
    """
    try:
        return divide(map_file(path), path.stat().st_size)[0]
    except (NotDividedError, OSError):
        return read_json(path)


def parse_piece(text: memoryview) -> list[Entry]:
    """Parse a piece.

    Raises:
        NotDividedError: it is not a list of annotations.
    """
    entries = _parse(b"".join((b"[", text, b"]")))
    if not all(isinstance(entry, dict) for entry in entries):
        raise NotDividedError
    return entries


def _spans(text: memoryview, first: int, last: int, piece_size: int) -> Iterator[tuple[int, int]]:
    while first < last:
        between = BETWEEN.search(text, min(first + piece_size, last), last)
        end, following = between.span(1) if between else (last, last)
        yield first, end
        first = following


def _parse(text: bytes) -> Any:
    try:
        return parse_json(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotDividedError from error
