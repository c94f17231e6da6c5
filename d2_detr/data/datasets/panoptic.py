"""Panoptic datasets as Detectron2 knows them: registered, loaded when asked for, and their segments as annotations."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from d2_detr.data.formats.coco_panoptic import SUFFIX, PanopticFile, read_ids, read_panoptic
from d2_detr.utils.errors import InputError

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

logger = logging.getLogger(__name__)


def register_panoptic(
    name: str,
    *,
    image_root: str | Path,
    panoptic_json: str | Path,
    panoptic_root: str | Path,
    instances: str | None = None,
    train_json: str | Path | None = None,
    made_from: str | Path | None = None,
) -> None:
    """Register a dataset in COCO's panoptic format, in place of one of that name. Nothing is read yet.

    Its classes are things in the order of their category ids, then stuff in the order of theirs. As in Detectron2's own
    panoptic datasets, `thing_classes` and `stuff_classes` both name all of them.

    Args:
        image_root, panoptic_root: folders of the pictures and of the PNGs.
        instances: name of the dataset of the same pictures with the things alone, to compute AP.
        train_json: panoptic file that was trained on; if it is there, `panoptic_json` must have the same categories.
        made_from: annotation file with the instances that it was made from; it is warned about if that is newer.
    """
    paths = {"image_root": image_root, "panoptic_json": panoptic_json, "panoptic_root": panoptic_root}
    metadata = {key: str(path) for key, path in paths.items()}
    if instances:
        metadata["instances"] = instances
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    DatasetCatalog.register(name, partial(_load, name, metadata, train_json and Path(train_json), made_from))
    _set_metadata(name, metadata)


def register_made_panoptic(
    instances: str, *, image_root: str | Path, annotation_file: Path, train_file: Path | None = None
) -> None:
    """Register what make_panoptic makes of the annotation files of a dataset `instances`, as `instances`_panoptic."""
    panoptic_json = made_json(annotation_file)
    register_panoptic(
        instances + SUFFIX,
        image_root=image_root,
        panoptic_json=panoptic_json,
        panoptic_root=panoptic_json.with_suffix(""),
        instances=instances,
        train_json=train_file and made_json(train_file),
        made_from=annotation_file,
    )


def made_json(annotation_file: Path) -> Path:
    """The panoptic file that is made of an annotation file with instances; its PNGs are in the folder of that stem."""
    return annotation_file.with_name(f"{annotation_file.stem}{SUFFIX}.json")


def _load(name: str, metadata: Mapping[str, str], train_json: Path | None, made_from: str | Path | None) -> list[dict]:
    """Detectron2's dicts, in the order of the file; the metadata get the classes."""
    file = read_panoptic(metadata["panoptic_json"])
    if made_from and Path(made_from).is_file() and Path(made_from).stat().st_mtime > file.path.stat().st_mtime:
        logger.warning(
            "%s is older than %s; if its masks have changed: python tools/make_panoptic.py %s",
            file.path, Path(made_from).name, made_from,
        )  # fmt: skip
    if train_json and train_json != file.path and train_json.is_file():
        _check_same_categories(file, read_panoptic(train_json))
    dicts = _dataset_dicts(file, Path(metadata["image_root"]), Path(metadata["panoptic_root"]))
    _set_metadata(
        name,
        metadata,
        thing_classes=file.names,
        stuff_classes=file.names,
        thing_dataset_id_to_contiguous_id=file.contiguous_ids(things=True),
        stuff_dataset_id_to_contiguous_id=file.contiguous_ids(things=False),
    )
    return dicts


def _set_metadata(name: str, metadata: Mapping[str, str], **classes: object) -> None:
    """Metadata refuse to be changed; a file that was corrected since gets new ones."""
    if name in MetadataCatalog:
        MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(evaluator_type="coco_panoptic_seg", **metadata, **classes)


def _check_same_categories(file: PanopticFile, train: PanopticFile) -> None:
    for category_id in sorted({*file.categories, *train.categories}):
        here, there = (f.categories.get(category_id, "missing") for f in (file, train))
        if here != there:
            raise InputError(
                f"{file.path}: category {category_id} is {here}, in {train.path.name} it is {there}; give both files "
                "the same categories, and the same --background if tools/make_panoptic.py makes them"
            )


def _dataset_dicts(file: PanopticFile, image_root: Path, panoptic_root: Path) -> list[dict]:
    contiguous_ids = {category_id: i for i, category_id in enumerate(file.categories)}
    dicts = []
    for annotation in file.annotations:
        image = file.images[annotation["image_id"]]
        png = panoptic_root / annotation["file_name"]
        if not png.is_file():
            raise FileNotFoundError(
                f"{png}: named in {file.path}, but there is no such file; bring the JSON file and its PNGs anew"
            )
        segments = [
            segment
            | {
                "category_id": contiguous_ids[segment["category_id"]],
                "isthing": file.categories[segment["category_id"]].isthing,
            }
            for segment in annotation["segments_info"]
        ]
        dicts.append(
            {
                "file_name": str(image_root / image["file_name"]),
                "image_id": image["id"],
                "height": image["height"],
                "width": image["width"],
                "pan_seg_file_name": str(png),
                "segments_info": segments,
            }
        )
    return dicts


def check_panoptic(names: Sequence[str]) -> None:
    """See that registered datasets have panoptic annotations.

    Raises:
        InputError: for the first that has none.
    """
    for name in names:
        if not MetadataCatalog.get(name).get("panoptic_json"):
            known = ", ".join(n for n in sorted(DatasetCatalog.list()) if MetadataCatalog.get(n).get("panoptic_json"))
            raise InputError(
                f"MODEL.DETR.PANOPTIC_ON, but dataset {name} has no panoptic annotations; those have them: {known}"
            )


def objects_of(dataset_dict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The annotations of any dataset dict; those of a panoptic one are its segments, without their masks.

    Nothing is read from disk. Crowds are among them, with `iscrowd` 1.
    """
    if "annotations" in dataset_dict:
        return dataset_dict["annotations"]
    return [
        {
            "bbox": segment["bbox"],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": segment["category_id"],
            "iscrowd": segment.get("iscrowd", 0),
        }
        for segment in dataset_dict.get("segments_info", [])
    ]


def read_segments(dataset_dict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """As objects_of, and for a panoptic dict with `segmentation`, the mask from the PNG as an RLE of COCO's.

    Raises:
        FileNotFoundError, InputError: the PNG is missing, damaged, of another size than the dict says, or lacks a
            segment.
    """
    if "annotations" in dataset_dict or "segments_info" not in dataset_dict:
        return objects_of(dataset_dict)
    path = dataset_dict["pan_seg_file_name"]
    size_wh = (dataset_dict["width"], dataset_dict["height"]) if "width" in dataset_dict else None
    ids = read_ids(path, annotated_wh=size_wh)
    annotations = objects_of(dataset_dict)
    for annotation, segment in zip(annotations, dataset_dict["segments_info"], strict=True):
        mask = ids == segment["id"]
        if not mask.any():
            raise InputError(
                f"{path}: no pixel of the segment with id {segment['id']}, which the JSON file lists; bring the JSON "
                "file and its PNGs anew"
            )
        annotation["segmentation"] = mask_util.encode(np.asfortranarray(mask, np.uint8))
    return annotations
