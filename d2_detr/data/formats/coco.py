"""Annotation files in COCO format, for Detectron2's dataset dicts.

A file is checked as a whole. The dialects of common annotation tools are accepted: ids as numbers or as strings of
digits; category ids from 0, from 1 or with gaps; annotations without id, or with id 0, which pycocotools takes for "no
match"; images without size.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2_detr.data.formats.coco_annotations import AnnotationChecker, annotation_warning
from d2_detr.data.formats.coco_sections import Entry, parse_categories, parse_images, parse_sections
from d2_detr.data.formats.file_names import image_path
from d2_detr.data.formats.via import is_via
from d2_detr.structures.masks import to_rle
from d2_detr.structures.records import Record
from d2_detr.utils.command_line import command
from d2_detr.utils.errors import InputError, error_context
from d2_detr.utils.files import read_json

from detectron2.structures import BoxMode

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoFile:
    """A checked annotation file: ids are parsed, and every reference is valid.

    Attributes:
        path: the file, for messages.
        images: its entries, with `width` and `height` in pixels.
        annotations: its entries, with ids from 1 and with `bbox` [x, y, width, height] in pixels.
        categories: names by category id, in the order of the ids.
        warning: the message about annotations that were dropped or corrected, or "".
    """

    path: Path
    images: list[Entry]
    annotations: list[Entry]
    categories: dict[int, str]
    warning: str = ""

    def as_json(self, categories: Mapping[int, str] | None = None) -> dict[str, list[Entry]]:
        """Return the content of a file that pycocotools reads correctly.

        Args:
            categories: those of the whole dataset, if a split has fewer.
        """
        names = self.categories if categories is None else categories
        return {
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": category_id, "name": name} for category_id, name in names.items()],
        }

    def dataset_dicts(
        self, image_root: str | Path, contiguous_ids: Mapping[int, int], root: Path | None = None
    ) -> list[Record]:
        """Return Detectron2's dataset dicts, in the order of `images`.

        Args:
            image_root: folder of the images.
            contiguous_ids: by category id.
            root: the folder that the images must not leave (see image_path).

        Raises:
            InputError: an image is outside `root`.
        """
        with error_context(self.path):
            records = {image["id"]: image_dict(image, image_root, root) for image in self.images}
        for annotation in self.annotations:
            records[annotation["image_id"]]["annotations"].append(instance_dict(annotation, contiguous_ids))
        return list(records.values())


def read_coco(path: str | Path, image_root: str | Path, *, strict: bool = False) -> CocoFile:
    """Read and check an annotation file.

    Args:
        image_root: folder of the images; sizes that the file lacks are read from there.
        strict: see `parse_coco`.

    Raises:
        FileNotFoundError: the file, or an image whose size is needed, does not exist.
        InputError: the file is not JSON, or see `parse_coco`.
    """
    return parse_coco(read_json(path), image_root, source=path, strict=strict)


def parse_coco(
    content: object, image_root: str | Path, *, source: str | Path, strict: bool = False, root: Path | None = None
) -> CocoFile:
    """Check the content of an annotation file.

    Annotations that cannot be trained on are dropped with a warning: boxes that are less than a pixel wide or high, or
    entirely outside the image.

    Args:
        image_root: folder of the images; sizes that the content lacks are read from there.
        source: the file, for messages.
        strict: raise InputError instead of dropping annotations.
        root: the folder that those images must not leave (see image_path).

    Raises:
        FileNotFoundError: an image whose size is needed does not exist.
        InputError: the content is not in COCO format, or has invalid entries; the message names the first ones by file,
            entry and field, and counts the others.
    """
    path = Path(source)
    if is_via(content):
        raise InputError(f"{path}: VIA annotations, expected COCO format; convert them: {command('via-to-coco', path)}")
    sections = parse_sections(path, content)
    categories = parse_categories(path, sections["categories"])
    images = parse_images(path, sections["images"], Path(image_root), root)
    checker = AnnotationChecker(
        {image["id"]: (image["width"], image["height"]) for image in images}, categories, strict=strict
    )
    annotations: list[Entry] = []
    for i, entry in enumerate(sections["annotations"]):
        if checker.accept(i, entry):
            annotations.append(checker.normalized(entry, len(annotations) + 1))
    num_annotations = len(sections["annotations"])
    checker.check(path, num_annotations)
    warning = annotation_warning(path, num_annotations, len(checker.dropped), len(checker.corrected), checker)
    if warning:
        logger.warning(warning)
    return CocoFile(path, images, annotations, categories, warning)


def image_dict(image: Entry, image_root: str | Path, root: Path | None = None) -> Record:
    """Return the dataset dict of an image of a parsed file, without annotations.

    Raises:
        InputError: the image is outside `root` (see image_path).
    """
    return {
        "file_name": str(image_path(image_root, image["file_name"], root)),
        "height": image["height"],
        "width": image["width"],
        "image_id": image["id"],
        "annotations": [],
    }


def instance_dict(annotation: Entry, contiguous_ids: Mapping[int, int]) -> dict[str, Any]:
    """Return the instance of a dataset dict for an annotation that is accepted and normalized."""
    instance = {
        "bbox": annotation["bbox"],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": contiguous_ids[annotation["category_id"]],
        "iscrowd": annotation["iscrowd"],
    }
    if segmentation := annotation.get("segmentation"):
        # Detectron2 expects polygons unchanged and RLEs compressed.
        is_rle = isinstance(segmentation, dict)
        instance["segmentation"] = to_rle(segmentation, segmentation["size"]) if is_rle else segmentation
    return instance
