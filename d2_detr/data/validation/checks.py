"""Checks of images and masks, on which a run would fail halfway."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from d2_detr.data.annotations import annotated_wh, mask_problem, record_annotations
from d2_detr.data.images import check_image
from d2_detr.structures.dataset import Dataset
from d2_detr.structures.records import Record
from d2_detr.utils.errors import InputError

NUM_THREADS = 16  # reading headers waits for the disk


def check_images(datasets: Sequence[Dataset]) -> None:
    """Check that every image exists, is complete and has the annotated size.

    Raises:
        FileNotFoundError: an image does not exist.
        InputError: an image is invalid. Both messages name the first invalid image and count the others.
    """
    named = [(dataset.name, record) for dataset in datasets for record in dataset.records]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        checks = pool.map(_image_problem, *zip(*named, strict=True)) if named else ()
        problems = [*filter(None, tqdm(checks, "Checking the images", len(named), delay=2, leave=False))]
    if problems:
        others = f" (and {len(problems) - 1} more invalid images)" if len(problems) > 1 else ""
        raise type(problems[0])(f"{problems[0]}{others}") from problems[0]


def _image_problem(name: str, record: Record) -> FileNotFoundError | InputError | None:
    try:
        check_image(record["file_name"], annotated_wh(record))
    except FileNotFoundError as error:
        return FileNotFoundError(f"{error}, but the annotations of {name} list it; add it, or remove its entry")
    except InputError as error:
        return error
    return None


def check_masks(datasets: Sequence[Dataset]) -> None:
    """Check that every object has a mask.

    Raises:
        InputError: an object has no mask; the message names the image of the first one and counts the others.
    """
    problems = [
        f"{record['file_name']}: {problem}"
        for dataset in datasets
        for record in dataset.records
        if "segments_info" not in record  # the masks of a panoptic dataset are its segments
        for annotation in record_annotations(record)
        if (problem := mask_problem(annotation))
    ]
    if problems:
        others = f" (and {len(problems) - 1} more objects)" if len(problems) > 1 else ""
        raise InputError(problems[0] + others)
