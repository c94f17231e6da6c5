"""Panoptic datasets: COCO's panoptic format, read into Detectron2's dataset format."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2_detr.data.formats.coco_panoptic import PanopticFile, panoptic_json_path, read_panoptic
from d2_detr.data.formats.file_names import image_path
from d2_detr.structures.records import Record
from d2_detr.utils.command_line import command
from d2_detr.utils.errors import InputError, error_context

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PanopticSource:
    """Where the files of a panoptic dataset are.

    Attributes:
        image_root: folder of the images.
        panoptic_json: the annotations.
        panoptic_root: folder of the PNGs.
        instances: name of the dataset with the things of the same images, on which AP is measured.
        train_json: the panoptic file that was trained on; if it exists, the categories must agree.
        root: the folder that the images must not leave (see image_path).
        made_from: the instance annotations from which the file was made; if they are newer, there is a warning.
    """

    image_root: Path
    panoptic_json: Path
    panoptic_root: Path
    instances: str
    train_json: Path | None = None
    root: Path | None = None
    made_from: Path | None = None

    @classmethod
    def beside(
        cls,
        annotation_file: Path,
        *,
        image_root: Path,
        instances: str,
        train_file: Path | None = None,
        root: Path | None = None,
    ) -> PanopticSource:
        """Return the files that make-panoptic writes beside the annotation file of an instance dataset."""
        panoptic_json = panoptic_json_path(annotation_file)
        train_json = panoptic_json_path(train_file) if train_file else None
        return cls(
            image_root,
            panoptic_json,
            panoptic_json.with_suffix(""),
            instances,
            train_json,
            root,
            made_from=annotation_file,
        )

    @property
    def metadata(self) -> dict[str, Any]:
        """The part of Detectron2's metadata that is known without reading a file."""
        return {
            "evaluator_type": "coco_panoptic_seg",
            "image_root": str(self.image_root),
            "panoptic_json": str(self.panoptic_json),
            "panoptic_root": str(self.panoptic_root),
            "instances": self.instances,
        }

    def read(self) -> tuple[list[Record], dict[str, Any]]:
        """Read the images in the order of the file, and the complete metadata.

        Classes are things in the order of their category ids, then stuff in the order of theirs. As in Detectron2's own
        panoptic datasets, `thing_classes` and `stuff_classes` both name all of them.

        Raises:
            FileNotFoundError, InputError: a file is missing or wrong, or the categories differ from the training's.
        """
        file = read_panoptic(self.panoptic_json)
        made_from = self.made_from
        if made_from and made_from.is_file() and made_from.stat().st_mtime > file.path.stat().st_mtime:
            logger.warning(
                "%s is older than %s; if masks have changed, run: %s",
                file.path, made_from.name, command("make-panoptic", made_from),
            )  # fmt: skip
        if self.train_json and self.train_json != file.path and self.train_json.is_file():
            _check_same_categories(file, read_panoptic(self.train_json))
        names = list(file.label_map.names)
        metadata = self.metadata | {
            "thing_classes": names,
            "stuff_classes": names,
            "thing_dataset_id_to_contiguous_id": file.contiguous_ids(things=True),
            "stuff_dataset_id_to_contiguous_id": file.contiguous_ids(things=False),
        }
        return self._records(file), metadata

    def _records(self, file: PanopticFile) -> list[Record]:
        contiguous_ids = file.label_map.contiguous_ids
        records = []
        for annotation in file.annotations:
            image = file.images[annotation["image_id"]]
            with error_context(file.path):
                png = image_path(self.panoptic_root, annotation["file_name"])
                image_file = image_path(self.image_root, image["file_name"], self.root)
            if not png.is_file():
                raise FileNotFoundError(f"{png}: no such file, but {file.path} names it; restore the JSON and its PNGs")
            segments = [
                segment
                | {
                    "category_id": contiguous_ids[segment["category_id"]],
                    "isthing": file.categories[segment["category_id"]].isthing,
                }
                for segment in annotation["segments_info"]
            ]
            records.append(
                {
                    "file_name": str(image_file),
                    "image_id": image["id"],
                    "height": image["height"],
                    "width": image["width"],
                    "pan_seg_file_name": str(png),
                    "segments_info": segments,
                }
            )
        return records


def _check_same_categories(file: PanopticFile, train: PanopticFile) -> None:
    for category_id in sorted({*file.categories, *train.categories}):
        here, there = (f.categories.get(category_id, "missing") for f in (file, train))
        if here != there:
            raise InputError(
                f"{file.path}: category {category_id} is {here}, but {there} in {train.path.name}; both files need the "
                f"same categories, and the same --background if {command('make-panoptic')} makes them"
            )
