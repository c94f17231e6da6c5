"""Dataset dicts of a large COCO file, without an object in memory for each of its numbers.

Annotations are parsed, checked and encoded in pieces by worker processes. If anything is wrong or unusual, the caller
parses the file as a whole, and gets the error message or the result from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from d2_detr.data.formats.coco import image_dict, instance_dict
from d2_detr.data.formats.coco_annotations import AnnotationChecker, BoxFormat, annotation_warning
from d2_detr.data.formats.coco_pieces import NotDividedError, divide, parse_piece
from d2_detr.data.formats.coco_sections import Entry, parse_categories, parse_images, parse_sections
from d2_detr.structures.records import Record, encode_record, map_file, spans_of
from d2_detr.utils.errors import InputError
from d2_detr.utils.processes import map_in_processes, num_cores

PIECE_SIZE = 1 << 20  # bytes; parsed, this is 5 MB of objects


class Piece(NamedTuple):
    """The instances of a piece of the file.

    Attributes:
        num_annotations: annotations, including those that are dropped.
        num_dropped: annotations that cannot be trained on.
        num_corrected: instances whose area was impossible.
        images: (N,), int32: the index of each instance's image.
        spans: (N, 2), int64: where each instance is in `block`, in bytes.
        block: the encoded instances.
        box_format: of the boxes.
    """

    num_annotations: int
    num_dropped: int
    num_corrected: int
    images: np.ndarray
    spans: np.ndarray
    block: bytes
    box_format: BoxFormat


@dataclass(frozen=True)
class EncodedFile:
    """A checked annotation file.

    Attributes:
        categories: names by category id, in the order of the ids.
        warning: the message about annotations that were dropped or corrected, or "".
        images: the dataset dicts of the images, without annotations.
        pieces: the instances.
    """

    categories: dict[int, str]
    warning: str
    images: Sequence[Record]
    pieces: Sequence[Piece]

    def records(self) -> Iterator[bytes]:
        """Yield dataset dicts as `encode_record` encodes them, in the order of the images."""
        image_of_instance = np.concatenate([piece.images for piece in self.pieces])
        order = np.argsort(image_of_instance, kind="stable")  # keeps the order of the file in each image
        piece_of_instance = np.repeat(np.arange(len(self.pieces)), [len(piece.images) for piece in self.pieces])[order]
        spans = np.concatenate([piece.spans for piece in self.pieces])[order]
        ends = np.cumsum(np.bincount(image_of_instance, minlength=len(self.images)))
        first = 0
        for image, last in zip(self.images, ends.tolist(), strict=True):
            here = slice(first, last)
            instances = [
                self.pieces[piece].block[start:end]
                for piece, (start, end) in zip(piece_of_instance[here].tolist(), spans[here].tolist(), strict=True)
            ]
            record = encode_record(image)  # it ends with an empty list of annotations
            yield b"".join((record.removesuffix(b"]}"), b",".join(instances), b"]}"))
            first = last


def encode_coco(path: Path, image_root: Path, root: Path | None = None) -> EncodedFile | None:
    """Read, check and encode an annotation file; its own categories are the classes.

    Args:
        image_root: folder of the images; sizes that the file lacks are read from there.
        root: the folder that the images must not leave (see image_path).

    Returns:
        The encoded file; None if something in it is wrong or unusual, so that `read_coco` must be used.
    """
    try:
        text = map_file(path)
        content, spans = divide(text, PIECE_SIZE)
        sections = parse_sections(path, content)
        images = parse_images(path, sections["images"], image_root, root)
        records = [image_dict(image, image_root, root) for image in images]
        encoder = _Encoder(text, images, parse_categories(path, sections["categories"]))
        pieces = list(map_in_processes(encoder, spans, f"Reading {path.name}", num_workers=num_cores()))
        box_format = BoxFormat()
        for piece in pieces:
            box_format.merge(piece.box_format)
        box_format.check(path, sum(piece.num_annotations for piece in pieces))
        warning = encoder.warning(path, spans, pieces)
    except (NotDividedError, InputError, OSError, ValueError, BrokenExecutor):
        return None
    return EncodedFile(encoder.categories, warning, records, pieces)


class _Encoder:
    """Encodes pieces of a file."""

    def __init__(self, text: memoryview, images: Sequence[Entry], categories: dict[int, str]):
        self.categories = categories
        self._text = text
        self._sizes_wh = {image["id"]: (image["width"], image["height"]) for image in images}
        self._image_indices = {image["id"]: i for i, image in enumerate(images)}
        self._contiguous_ids = {category_id: i for i, category_id in enumerate(categories)}

    def __call__(self, span: tuple[int, int]) -> Piece:
        """Encode the annotations between two bytes of the text.

        Raises:
            NotDividedError: they are not annotations, or something in them is wrong.
        """
        checker = AnnotationChecker(self._sizes_wh, self.categories)
        entries = parse_piece(self._text[slice(*span)])
        block, lengths, images = bytearray(), [], []
        for i, entry in enumerate(entries):
            if checker.accept(i, entry):
                annotation = checker.normalized(entry, i)
                encoded = encode_record(instance_dict(annotation, self._contiguous_ids))
                block += encoded
                lengths.append(len(encoded))
                images.append(self._image_indices[annotation["image_id"]])
        if checker.problems:
            raise NotDividedError
        return Piece(
            len(entries),
            len(checker.dropped),
            len(checker.corrected),
            np.array(images, np.int32),
            spans_of(lengths),
            bytes(block),
            checker.box_format,
        )

    def warning(self, path: Path, spans: Sequence[tuple[int, int]], pieces: Sequence[Piece]) -> str:
        """Return the warning about dropped and corrected annotations, or ""."""
        checker = AnnotationChecker(self._sizes_wh, self.categories)
        num_annotations = 0
        for span, piece in zip(spans, pieces, strict=True):
            has_first_dropped = piece.num_dropped and not checker.dropped
            has_first_corrected = piece.num_corrected and not checker.corrected
            if has_first_dropped or has_first_corrected:  # checked again, now that the index of its first one is known
                for i, entry in enumerate(parse_piece(self._text[slice(*span)]), num_annotations):
                    checker.accept(i, entry)
            num_annotations += piece.num_annotations
        num_dropped, num_corrected = (sum(numbers) for numbers in zip(*(p[1:3] for p in pieces), strict=True))
        return annotation_warning(path, num_annotations, num_dropped, num_corrected, checker)
