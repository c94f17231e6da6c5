"""Panoptic ground truth from instance masks: what no object covers is one kind of stuff."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from tqdm import tqdm

from d2_detr.data.datasets.panoptic import made_json
from d2_detr.data.formats.coco import CocoFile, read_coco
from d2_detr.data.formats.coco_panoptic import MOST_IDS, VOID, write_ids
from d2_detr.structures.masks import to_rle
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import read_json, write_json

MADE_BY = "made from instance masks by d2_detr"  # in the JSON file, so that nobody's own work is replaced
# Neighbouring numbers become colours that the eye tells apart; as the factor is odd, no two share one.
COLOUR_STEP = 0x9E3779


def make_panoptic(
    annotation_file: str | Path, image_root: str | Path | None = None, *, background: str = "background"
) -> Path:
    """Write X_panoptic.json and the PNGs of all pictures in X_panoptic/, beside X.json with instances in COCO format.

    Every pixel belongs to one segment. Where masks overlap, the smaller object lies in front, and every object in front
    of the crowds; an object that is hidden is left out. The JSON file is written last: where it is, the PNGs are.

    Args:
        image_root: folder of the pictures; needed where the file does not give their sizes.
        background: name of the stuff; its category id is the largest one + 1.

    Returns:
        The path of the JSON file. What an earlier call wrote is replaced.

    Raises:
        FileNotFoundError, InputError: see read_coco; an object without a mask; a category of the name `background`; or
            something that this function did not write lies where it would write.
    """
    coco = _read(Path(annotation_file), image_root)
    _check_objects(coco, background)
    json_file = made_json(coco.path)
    folder = json_file.with_suffix("")
    _check_replaceable(json_file, folder)

    stuff_id = max(coco.categories) + 1
    categories = [{"id": i, "name": name, "isthing": 1} for i, name in coco.categories.items()]
    categories.append({"id": stuff_id, "name": background, "isthing": 0})
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        pngs = Path(scratch) / "pngs"
        annotations = _paint_pictures(coco, stuff_id, pngs)
        json_file.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(pngs, folder)
    info = {"description": MADE_BY, "source": coco.path.name}
    write_json({"info": info, "images": coco.images, "annotations": annotations, "categories": categories}, json_file)
    return json_file


def _read(path: Path, image_root: str | Path | None) -> CocoFile:
    try:
        return read_coco(path, image_root or path.parent)
    except FileNotFoundError as error:
        if image_root is None and path.is_file():
            raise InputError(
                f"{path}: does not give the size of every picture; give their folder with --pictures"
            ) from error
        raise


def _check_objects(coco: CocoFile, background: str) -> None:
    if background in coco.categories.values():
        raise InputError(f"{coco.path}: a category is called {background!r} already; give another --background")
    file_names = {image["id"]: image["file_name"] for image in coco.images}
    for number, annotation in enumerate(coco.annotations):
        if not annotation.get("segmentation"):
            raise InputError(
                f"{coco.path}: annotations[{number}], in {file_names[annotation['image_id']]}: a "
                f"{coco.categories[annotation['category_id']]} without `segmentation`; outline it, or remove it"
            )


def _check_replaceable(json_file: Path, folder: Path) -> None:
    if not json_file.exists():
        if folder.exists():
            raise InputError(f"{folder} is there already, without {json_file.name}; remove it, or give it another name")
        return
    content = read_json(json_file)
    info = content.get("info") if isinstance(content, dict) else None
    if not isinstance(info, dict) or info.get("description") != MADE_BY:
        raise InputError(f"{json_file} is there already, and not from this tool; remove it first if it may be replaced")


def _paint_pictures(coco: CocoFile, stuff_id: int, folder: Path) -> list[dict[str, Any]]:
    """Write the PNGs into `folder`; the annotations that belong to them."""
    objects: dict[int | str, list[dict]] = {image["id"]: [] for image in coco.images}
    for annotation in coco.annotations:
        objects[annotation["image_id"]].append(annotation)
    annotations = []
    progress = tqdm(coco.images, f"Painting {coco.path.name}", delay=2, leave=False)
    for image, png in zip(progress, _png_names(coco.images), strict=True):
        try:
            ids, segments = paint(objects[image["id"]], (image["height"], image["width"]), stuff_id)
        except (ValueError, TypeError, OverflowError) as error:  # as pycocotools answers to a damaged RLE
            raise InputError(
                f"{coco.path}: {image['file_name']} has a `segmentation` that cannot be read ({error}); outline it anew"
            ) from error
        write_ids(ids, folder / png)
        annotations.append({"image_id": image["id"], "file_name": png, "segments_info": segments})
    return annotations


def _png_names(images: Sequence[dict]) -> list[str]:
    """Those of the pictures, as Detectron2 expects it, or numbers where two pictures in subfolders share a name."""
    stems = [Path(image["file_name"]).stem for image in images]
    if len(set(stems)) < len(stems):
        stems = [f"{number:06}" for number in range(1, len(stems) + 1)]
    return [f"{stem}.png" for stem in stems]


def paint(
    objects: Sequence[dict[str, Any]], size_hw: tuple[int, int], stuff_id: int
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Segment ids (H, W), int32, of a picture, and what each segment is, in COCO's panoptic format.

    Args:
        objects: annotations in COCO format, from the file's `segmentation`.
        stuff_id: category id of the pixels that no object covers.
    """
    masks = [to_rle(annotation["segmentation"], size_hw) for annotation in objects]
    # What is painted last lies in front.
    order = sorted(range(len(objects)), key=lambda i: (not objects[i]["iscrowd"], -int(mask_util.area(masks[i]))))
    ids = np.zeros(size_hw, np.int32)
    painted = []
    for i in order:
        segment_id = _segment_id(len(painted))
        ids[mask_util.decode(masks[i]) > 0] = segment_id
        painted.append((segment_id, objects[i]["category_id"], objects[i]["iscrowd"]))
    painted.append((_segment_id(len(painted)), stuff_id, 0))
    ids[ids == VOID] = painted[-1][0]
    segments = [_segment(ids, *one) for one in painted]
    return ids, [segment for segment in segments if segment["area"]]


def _segment_id(number: int) -> int:
    return (number + 1) * COLOUR_STEP % MOST_IDS


def _segment(ids: np.ndarray, segment_id: int, category_id: int, iscrowd: int) -> dict[str, Any]:
    """An entry of `segments_info`, measured on the pixels that can be seen."""
    visible = mask_util.encode(np.asfortranarray(ids == segment_id, np.uint8))
    return {
        "id": segment_id,
        "category_id": category_id,
        "area": int(mask_util.area(visible)),
        "bbox": [int(side) for side in mask_util.toBbox(visible)],
        "iscrowd": iscrowd,
    }
