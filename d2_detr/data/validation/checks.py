"""Checks of images and masks, on which a run would fail halfway."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import NamedTuple

from d2_detr.data.annotations import annotated_wh, image_files, mask_problem, record_annotations
from d2_detr.data.images import check_image
from d2_detr.data.validation.checked_images import CheckedImages
from d2_detr.structures.dataset import Dataset
from d2_detr.structures.records import Record
from d2_detr.utils.errors import InputError
from d2_detr.utils.processes import chunks, map_in_processes, num_cores

CHUNK_SIZE = 2000  # images per piece of work; smaller datasets need no other process
NUM_THREADS = 16  # reading headers waits for the disk


class _Checked(NamedTuple):
    """The result for some images: what is wrong with them, and the fingerprints of those that are valid."""

    problems: list[FileNotFoundError | InputError]
    fingerprints: list[int]


def check_images(datasets: Sequence[Dataset]) -> None:
    """Check that every image, and every PNG of segments, exists, is complete and has the annotated size.

    In a large dataset, files that were valid in an earlier run and have not changed are not read again.

    Raises:
        FileNotFoundError: an image does not exist.
        InputError: an image is invalid. Both messages name the first invalid image and count the others.
    """
    problems = list(chain.from_iterable(map(_image_problems, datasets)))
    if problems:
        others = f" (and {len(problems) - 1} more invalid images)" if len(problems) > 1 else ""
        raise type(problems[0])(f"{problems[0]}{others}") from problems[0]


def check_masks(datasets: Sequence[Dataset]) -> None:
    """Check that every object has a mask.

    Raises:
        InputError: an object has no mask; the message names the image of the first one and counts the others.
    """
    problems = list(chain.from_iterable(map(_mask_problems, datasets)))
    if problems:
        others = f" (and {len(problems) - 1} more objects)" if len(problems) > 1 else ""
        raise InputError(problems[0] + others)


def _image_problems(dataset: Dataset) -> list[FileNotFoundError | InputError]:
    known = CheckedImages(dataset)

    def check(indices: range) -> _Checked:
        # Without the annotations: thousands of objects in memory would slow everything down.
        records: list[Record] = [
            {key: record[key] for key in ("file_name", "pan_seg_file_name", "width", "height") if key in record}
            for record in dataset.records[indices.start : indices.stop]
        ]
        problems: list[FileNotFoundError | InputError | None] = [None] * len(records)
        fingerprints: list[int | None] = [None] * len(records)  # of valid images

        def check_part(part: range) -> None:
            for i in part:
                fingerprint = known.fingerprint(records[i])
                if fingerprint not in known:
                    problems[i] = _image_problem(dataset.name, records[i])
                if not problems[i]:
                    fingerprints[i] = fingerprint

        # Each thread has a part: passing on the images one by one would take longer than to check them.
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            list(pool.map(check_part, (range(first, len(records), NUM_THREADS) for first in range(NUM_THREADS))))
        return _Checked([p for p in problems if p], [f for f in fingerprints if f is not None])

    work = chunks(len(dataset.records), CHUNK_SIZE)
    checked = list(map_in_processes(check, work, f"Checking the images of {dataset.name}", num_workers=num_cores()))
    known.replace(chain.from_iterable(part.fingerprints for part in checked))
    return [problem for part in checked for problem in part.problems]


def _image_problem(name: str, record: Record) -> FileNotFoundError | InputError | None:
    try:
        for name in image_files(record):
            check_image(name, annotated_wh(record))
    except FileNotFoundError as error:
        return FileNotFoundError(f"{error}, but the annotations of {name} list it; add it, or remove its entry")
    except InputError as error:
        return error
    return None


def _mask_problems(dataset: Dataset) -> list[str]:
    def check(indices: range) -> list[str]:
        return [
            f"{record['file_name']}: {problem}"
            for record in dataset.records[indices.start : indices.stop]
            if "segments_info" not in record  # the masks of a panoptic dataset are its segments
            for annotation in record_annotations(record)
            if (problem := mask_problem(annotation))
        ]

    work = chunks(len(dataset.records), CHUNK_SIZE)
    checked = map_in_processes(check, work, f"Checking the masks of {dataset.name}", num_workers=num_cores())
    return list(chain.from_iterable(checked))
