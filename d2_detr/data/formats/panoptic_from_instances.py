"""Panoptic ground truth from instance masks and one background class."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
from tqdm import tqdm

from d2_detr.data.formats.coco import CocoFile, read_coco
from d2_detr.data.formats.coco_panoptic import NUM_IDS, VOID, panoptic_json_path, write_ids
from d2_detr.data.formats.coco_sections import Entry
from d2_detr.data.formats.file_names import image_path
from d2_detr.structures.masks import mask_to_rle, to_rle
from d2_detr.utils.errors import InputError, error_context
from d2_detr.utils.files import read_json, write_json

MADE_BY = "made from instance masks by d2_detr"  # marks a JSON file that may be replaced
COLOR_STEP = 0x9E3779  # gives consecutive segments distinct colors; odd, so that no two segments share one


def make_panoptic(
    annotation_file: str | Path, image_root: str | Path | None = None, *, background: str = "background"
) -> Path:
    """Make a panoptic file from an instance file in COCO format.

    Writes X_panoptic.json, and the PNGs in X_panoptic/, next to X.json. Every pixel belongs to one segment; pixels
    outside all masks are stuff. Where masks overlap, the smaller object is in front, and crowds are behind all
    objects; an object without a visible pixel is omitted. Files of an earlier call are replaced. The JSON file is
    written last, so that the PNGs are complete if it exists.

    Args:
        image_root: folder of the images; needed if the file lacks their sizes.
        background: name of the stuff class; its category id is the largest one + 1.

    Returns:
        The path of the JSON file.

    Raises:
        FileNotFoundError: see `read_coco`.
        InputError: see `read_coco`; or an object has no mask, `background` is the name of a category, or a file that
            this function did not write would be replaced.
    """
    coco = _read(Path(annotation_file), image_root)
    _check_objects(coco, background)
    json_file = panoptic_json_path(coco.path)
    folder = json_file.with_suffix("")
    _check_replaceable(json_file, folder)

    stuff_id = max(coco.categories) + 1
    categories = [{"id": i, "name": name, "isthing": 1} for i, name in coco.categories.items()]
    categories.append({"id": stuff_id, "name": background, "isthing": 0})
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        pngs = Path(scratch) / "pngs"
        annotations = _write_pngs(coco, stuff_id, pngs)
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
                f"{path}: does not give the size of every image; give the folder of the images with --images"
            ) from error
        raise


def _check_objects(coco: CocoFile, background: str) -> None:
    if background in coco.categories.values():
        raise InputError(f"{coco.path}: a category is named {background!r} already; pass another --background")
    file_names = {image["id"]: image["file_name"] for image in coco.images}
    for annotation in coco.annotations:
        if not annotation.get("segmentation"):
            file_name, name = file_names[annotation["image_id"]], coco.categories[annotation["category_id"]]
            raise InputError(
                f"{coco.path}: {file_name}: a {name} (bbox {annotation['bbox']}) has no `segmentation`; annotate its "
                "mask, or remove it"
            )


def _check_replaceable(json_file: Path, folder: Path) -> None:
    if not json_file.exists():
        if folder.exists():
            raise InputError(f"{folder} exists already, without {json_file.name}; remove it or rename it")
        return
    content = read_json(json_file)
    info = content.get("info") if isinstance(content, dict) else None
    if not isinstance(info, dict) or info.get("description") != MADE_BY:
        raise InputError(f"{json_file} exists already, and is not from this tool; remove it if it may be replaced")


def _write_pngs(coco: CocoFile, stuff_id: int, folder: Path) -> list[Entry]:
    """Write the PNGs into a folder, and return the annotations that describe them."""
    objects: dict[int | str, list[Entry]] = {image["id"]: [] for image in coco.images}
    for annotation in coco.annotations:
        objects[annotation["image_id"]].append(annotation)
    annotations = []
    progress = tqdm(coco.images, f"Painting {coco.path.name}", delay=2, leave=False)
    for image, png in zip(progress, _png_names(coco.images), strict=True):
        ids, segments = paint(objects[image["id"]], (image["height"], image["width"]), stuff_id)
        with error_context(coco.path):
            write_ids(ids, image_path(folder, png))
        annotations.append({"image_id": image["id"], "file_name": png, "segments_info": segments})
    return annotations


def _png_names(images: Sequence[Entry]) -> list[str]:
    """Return the names of the images, or numbers if images share a name.

    Detectron2 expects the names of the images.
    """
    stems = [Path(image["file_name"]).stem for image in images]
    if len(set(stems)) < len(stems):
        stems = [f"{number:06}" for number in range(1, len(stems) + 1)]
    return [f"{stem}.png" for stem in stems]


def paint(objects: Sequence[Entry], size_hw: tuple[int, int], stuff_id: int) -> tuple[np.ndarray, list[Entry]]:
    """Paint the masks of an image.

    Args:
        objects: annotations in COCO format, with `segmentation`.
        size_hw: height and width of the image.
        stuff_id: category id of the pixels outside all masks.

    Returns:
        The segment ids (H, W), int32, and the `segments_info` in COCO's panoptic format.
    """
    masks = [to_rle(annotation["segmentation"], size_hw) for annotation in objects]
    # From back to front.
    order = sorted(range(len(objects)), key=lambda i: (not objects[i]["iscrowd"], -int(mask_util.area(masks[i]))))
    ids = np.zeros(size_hw, np.int32)
    painted: list[tuple[int, int, int]] = []
    for i in order:
        segment_id = _segment_id(len(painted))
        ids[mask_util.decode(masks[i]) > 0] = segment_id
        painted.append((segment_id, objects[i]["category_id"], objects[i]["iscrowd"]))
    painted.append((_segment_id(len(painted)), stuff_id, 0))
    ids[ids == VOID] = painted[-1][0]
    segments = [_segment(ids, *segment) for segment in painted]
    return ids, [segment for segment in segments if segment["area"]]


def _segment_id(number: int) -> int:
    return (number + 1) * COLOR_STEP % NUM_IDS


def _segment(ids: np.ndarray, segment_id: int, category_id: int, iscrowd: int) -> Entry:
    """Return an entry of `segments_info` with area and box of its visible pixels."""
    visible = mask_to_rle(ids == segment_id)
    return {
        "id": segment_id,
        "category_id": category_id,
        "area": int(mask_util.area(visible)),
        "bbox": [int(side) for side in mask_util.toBbox(visible)],
        "iscrowd": iscrowd,
    }
