"""Memory of the images of a large dataset that were checked and are valid."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from d2_detr.data.annotations import annotated_wh, image_files
from d2_detr.structures.dataset import Dataset
from d2_detr.structures.records import Record, file_stamp
from d2_detr.utils.download import cache_folder
from d2_detr.utils.files import atomic_write

logger = logging.getLogger(__name__)

MIN_IMAGES = 10_000  # in smaller datasets, all images are checked in every run


class CheckedImages:
    """Fingerprints of valid images, in a file in the cache.

    A fingerprint has 64 bits: that one of them is by chance that of another image is out of the question.
    """

    def __init__(self, dataset: Dataset):
        """Read the fingerprints of a dataset; there are none if it is small, or if the file is missing or damaged."""
        self._path = _path(dataset) if len(dataset.records) >= MIN_IMAGES else None
        self._fingerprints = frozenset(_read(self._path) if self._path else ())

    def __contains__(self, fingerprint: int | None) -> bool:
        return fingerprint in self._fingerprints

    def fingerprint(self, record: Record) -> int | None:
        """Return a number for an image, its annotated size, and the size and time of its file and its panoptic PNG.

        Returns:
            The fingerprint; None if the file cannot be read, or the dataset is small.
        """
        if not self._path:
            return None
        try:
            states = [(name, *file_stamp(Path(name))) for name in image_files(record)]
        except OSError:
            return None
        facts = (annotated_wh(record), *states)
        return int.from_bytes(hashlib.blake2b(repr(facts).encode(), digest_size=8).digest(), "little")

    def replace(self, fingerprints: Iterable[int]) -> None:
        """Remember other fingerprints instead."""
        found = frozenset(fingerprints)
        if not self._path or found == self._fingerprints:
            return
        self._fingerprints = found
        try:
            with atomic_write(self._path) as temporary:
                temporary.write_bytes(np.fromiter(found, "<u8", len(found)).tobytes())
        except OSError as error:
            logger.warning("%s: cannot be written (%s), so all images are checked in each run", self._path, error)


def _path(dataset: Dataset) -> Path:
    place = hashlib.sha256(dataset.catalog_name.encode()).hexdigest()[:16]
    return cache_folder() / "datasets" / f"{dataset.name}-{place}.checked"


def _read(path: Path) -> list[int]:
    try:
        return np.frombuffer(path.read_bytes(), "<u8").tolist()
    except (OSError, ValueError) as error:
        logger.debug("%s cannot be used: %s", path, error)
        return []
