"""Memory of large annotation files that were checked: the next run maps their records instead of parsing them again.

Each file in the cache holds the encoded records, their spans, and a footer in JSON:

    records | spans (N, 2) int64 | footer | CRC-32 of all that, length of the footer, MAGIC

It is valid for exactly one state of the annotation file, and replaced when that changes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from d2_detr.structures.records import Record, Records, spans_of
from d2_detr.utils.download import cache_folder
from d2_detr.utils.files import atomic_write

logger = logging.getLogger(__name__)

MIN_BYTES = 16 << 20  # smaller annotation files are parsed in a second
FORMAT = 2  # to be increased if records of the same annotations change, or if fewer are accepted
MAGIC = b"D2DETR\x00\x01"
TRAILER = struct.Struct("<IQ8s")
CHUNK = 1 << 20


@dataclass(frozen=True)
class CheckedSplit:
    """The records of a checked annotation file.

    Attributes:
        records: the images, in Detectron2's dataset format; a list if the file is small.
        classes: category names by id, of the whole dataset.
        warning: the message about annotations that were dropped or corrected, or "".
        json_file: the annotations against which AP is measured, or "".
    """

    records: Sequence[Record]
    classes: dict[int, str]
    warning: str = ""
    json_file: str = ""


@dataclass(frozen=True)
class SplitKey:
    """What the records of a split depend on.

    Attributes:
        name: of the dataset, for people who look into the cache.
        annotations: the file.
        images: the folder of the images.
        classes: category names by id of the training set; None if those of the file are the classes.
        state: size of the file, and nanoseconds of its last changes.
    """

    name: str
    annotations: Path
    images: Path
    classes: Mapping[int, str] | None
    state: tuple[int, int, int]

    @classmethod
    def of(cls, name: str, annotations: Path, images: Path, classes: Mapping[int, str] | None) -> SplitKey | None:
        """Return the key of an annotation file as it is now; None if it is not large enough to be remembered."""
        return cls(name, annotations, images, classes, _state(annotations)) if is_large(annotations) else None

    @property
    def path(self) -> Path:
        """The file in the cache, the same for every state of the annotation file."""
        place = json.dumps([str(self.annotations), str(self.images), self.classes is None])
        return cache_folder() / "datasets" / f"{self.name}-{hashlib.sha256(place.encode()).hexdigest()[:16]}.records"

    @property
    def text(self) -> str:
        """All of the key, as text."""
        classes = None if self.classes is None else list(self.classes.items())
        return json.dumps([FORMAT, str(self.annotations), str(self.images), classes, self.state])

    def is_current(self) -> bool:
        """Return whether the annotation file has not changed."""
        return _state(self.annotations) == self.state


def is_large(annotations: Path) -> bool:
    """Return whether an annotation file is large enough to be remembered."""
    return annotations.stat().st_size >= MIN_BYTES


def recall(key: SplitKey) -> CheckedSplit | None:
    """Return what is remembered about an annotation file; None if nothing is, or if it is damaged."""
    try:
        with key.path.open("rb") as file:
            footer, spans = _read_tables(file)
        if footer["key"] != key.text:
            return None
        classes = {int(category_id): name for category_id, name in footer["classes"]}
        return CheckedSplit(Records.map(key.path, spans), classes, footer["warning"], footer["json_file"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        logger.debug("%s cannot be used: %s", key.path, error)
        return None


def remember(
    key: SplitKey, encoded_records: Iterable[bytes], classes: Mapping[int, str], warning: str = "", json_file: str = ""
) -> CheckedSplit | None:
    """Remember a checked annotation file.

    Args:
        encoded_records: as `encode_record` encodes them.
        classes, warning, json_file: see CheckedSplit.

    Returns:
        What `recall` will return; None if the cache cannot be written to, or the annotation file has changed meanwhile.
    """
    footer = {"key": key.text, "classes": list(classes.items()), "warning": warning, "json_file": json_file}
    try:
        with atomic_write(key.path) as temporary, temporary.open("wb") as file:
            _write(file, encoded_records, footer)
        return recall(key) if key.is_current() else None
    except OSError as error:
        logger.warning(
            "%s: cannot be written (%s), so the annotations will be parsed in each run; D2_DETR_CACHE sets another "
            "folder for the cache",
            key.path, error,
        )  # fmt: skip
        return None


def _write(file: BinaryIO, encoded_records: Iterable[bytes], footer: Mapping[str, Any]) -> None:
    checksum, lengths = 0, []
    for encoded in encoded_records:
        file.write(encoded)
        checksum = zlib.crc32(encoded, checksum)
        lengths.append(len(encoded))
    spans = spans_of(lengths).astype("<i8").tobytes()
    text = json.dumps({"num_records": len(lengths), **footer}).encode()
    for part in (spans, text):
        file.write(part)
        checksum = zlib.crc32(part, checksum)
    file.write(TRAILER.pack(checksum, len(text), MAGIC))


def _read_tables(file: BinaryIO) -> tuple[dict[str, Any], np.ndarray]:
    """Return the footer and the spans of a file in the cache.

    Raises:
        ValueError, KeyError, struct.error: the file is damaged.
    """
    size = os.fstat(file.fileno()).st_size
    content_size = size - TRAILER.size
    file.seek(max(content_size, 0))
    checksum, footer_size, magic = TRAILER.unpack(file.read(TRAILER.size))
    if magic != MAGIC or footer_size > content_size or checksum != _checksum(file, content_size):
        raise ValueError("it is damaged")
    file.seek(content_size - footer_size)
    footer = json.loads(file.read(footer_size))
    spans_size = 16 * footer["num_records"]
    file.seek(content_size - footer_size - spans_size)
    return footer, np.frombuffer(file.read(spans_size), "<i8").reshape(-1, 2)


def _checksum(file: BinaryIO, size: int) -> int:
    file.seek(0)
    checksum = 0
    while size and (chunk := file.read(min(size, CHUNK))):
        checksum = zlib.crc32(chunk, checksum)
        size -= len(chunk)
    return checksum


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
