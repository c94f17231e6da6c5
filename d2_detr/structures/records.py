"""Detectron2's dataset dicts in one block of memory, which processes can share.

Python objects would take several times as much memory, and every process and every worker of a loader would have its
own copy of them.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import orjson

from d2_detr.utils.errors import InputError

from detectron2.structures import BoxMode

Record = dict[str, Any]  # a dataset dict of Detectron2

BOX_MODES = {int(mode): mode for mode in BoxMode}


class Records(Sequence[Record]):
    """Dataset dicts that are stored as JSON and decoded when they are accessed.

    Each access returns a new dict, which may be modified. Values are those that JSON has, with finite numbers; enums
    become numbers, except `bbox_mode`, and the `counts` of compressed RLEs become text.
    """

    def __init__(self, block: bytes | memoryview, spans: np.ndarray, path: Path | None = None):
        """Wrap encoded records.

        Args:
            block: the encoded records.
            spans: (N, 2), int64: the first byte of each record, and the first one after it.
            path: the file of which `block` is a memory map. Other processes map it, too, instead of receiving a copy.
        """
        self._block, self._spans = memoryview(block), spans
        self._path, self._stamp = path, file_stamp(path) if path else None

    @classmethod
    def pack(cls, records: Iterable[Record]) -> Records:
        """Encode records into memory."""
        return cls.join(map(encode_record, records))

    @classmethod
    def join(cls, encoded_records: Iterable[bytes]) -> Records:
        """Put encoded records into memory."""
        block, lengths = bytearray(), []
        for encoded in encoded_records:  # one by one: many small objects would need more memory and time
            block += encoded
            lengths.append(len(encoded))
        return cls(memoryview(block), spans_of(lengths))

    @classmethod
    def map(cls, path: Path, spans: np.ndarray) -> Records:
        """Map the encoded records of a file into memory."""
        return cls(map_file(path), spans, path)

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> Record | Records:
        if isinstance(index, slice):
            return self._with_spans(self._spans[index])
        start, end = self._spans[index]
        return decode_record(self._block[start:end])

    def __iter__(self) -> Iterator[Record]:
        for start, end in self._spans.tolist():
            yield decode_record(self._block[start:end])

    def select(self, indices: Sequence[int]) -> Records:
        """Return some of the records; they share the memory of all."""
        return self._with_spans(self._spans[np.asarray(indices, np.int64)])

    def _with_spans(self, spans: np.ndarray) -> Records:
        selected = Records(self._block, spans)
        selected._path, selected._stamp = self._path, self._stamp
        return selected

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_block": None if self._path else bytes(self._block)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        path, block = state["_path"], state["_block"]
        if path and file_stamp(path) != state["_stamp"]:
            raise InputError(f"{path} was replaced while a process was starting; start again")
        self.__dict__.update(state | {"_block": map_file(path) if path else memoryview(block)})


def encode_record(record: object) -> bytes:
    """Encode a record, or a part of one, as JSON."""
    try:
        return orjson.dumps(record, default=_as_text)
    except orjson.JSONEncodeError:  # a surrogate, such as in a file name that is not UTF-8
        return json.dumps(record, default=_as_text).encode()


def decode_record(encoded: bytes | memoryview) -> Record:
    """Decode a record."""
    try:
        record = orjson.loads(encoded)
    except orjson.JSONDecodeError:  # see encode_record
        record = json.loads(bytes(encoded))
    for annotation in record.get("annotations", ()):
        if "bbox_mode" in annotation:  # Detectron2's enum has methods that its number lacks
            annotation["bbox_mode"] = BOX_MODES[annotation["bbox_mode"]]
    return record


def spans_of(lengths: Iterable[int]) -> np.ndarray:
    """Return the spans (N, 2), int64, of parts with these lengths in bytes that follow each other."""
    ends = np.cumsum(np.fromiter(lengths, np.int64), dtype=np.int64)
    return np.stack((np.concatenate(([0], ends[:-1]))[: len(ends)], ends), axis=1).astype(np.int64)


def map_file(path: Path) -> memoryview:
    """Map a file into memory, whose pages all processes share.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is empty.
    """
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def file_stamp(path: Path) -> tuple[int, int]:
    """Return the size of a file in bytes and the time of its last change in nanoseconds."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _as_text(value: object) -> str:
    if isinstance(value, bytes):  # the counts of a compressed RLE, which pycocotools also accepts as text
        return value.decode("ascii")
    raise TypeError(f"{type(value).__name__} cannot be stored in a record")
