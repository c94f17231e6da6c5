"""Read and write COCO's JSON format as dataset dicts."""

import contextlib
import datetime
import io
import json
import logging
import os
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from iopath.common.file_io import file_lock
from pycocotools.coco import COCO

from detectron2.structures import Boxes, BoxMode, PolygonMasks
from detectron2.utils.file_io import PathManager, atomic_write

from ..catalog import DatasetCatalog, MetadataCatalog

__all__ = ["convert_to_coco_json", "load_coco_json", "register_coco_instances"]

logger = logging.getLogger(__name__)

Path = str | os.PathLike


def register_coco_instances(name: str, metadata: dict[str, Any], json_file: Path, image_root: Path) -> None:
    """Register a COCO JSON file as a dataset, with further metadata (often {})."""
    DatasetCatalog.register(name, lambda: load_coco_json(json_file, image_root, name))
    MetadataCatalog.get(name).set(json_file=json_file, image_root=image_root, evaluator_type="coco", **metadata)


def load_coco_json(json_file: Path, image_root: Path, dataset_name: str | None = None) -> list[dict[str, Any]]:
    """Read a COCO JSON file; return a dataset dict per image, by ascending id.

    With `dataset_name` the category ids are mapped to 0..K-1 in ascending order, and `thing_classes` and
    `thing_dataset_id_to_contiguous_id` are set in the metadata of that dataset; without it the ids are kept.
    """
    coco = read_coco(json_file)
    id_map = {category_id: i for i, category_id in enumerate(sorted(coco.cats))}
    if dataset_name is None:
        id_map = {category_id: category_id for category_id in id_map}
    else:
        classes = [coco.cats[category_id]["name"] for category_id in id_map]
        MetadataCatalog.get(dataset_name).set(thing_classes=classes, thing_dataset_id_to_contiguous_id=id_map)
    ids = [ann["id"] for ann in coco.dataset.get("annotations", [])]
    assert len(set(ids)) == len(ids), f"{json_file}: two annotations have the same id"
    dataset_dicts, num_dropped = [], 0
    for image_id, image in sorted(coco.imgs.items()):
        annotations = [_load_annotation(ann, id_map) for ann in coco.imgToAnns[image_id]]
        num_dropped += annotations.count(None)
        record = {"file_name": os.path.join(image_root, image["file_name"]), "image_id": image_id}
        record |= {"height": image["height"], "width": image["width"]}
        dataset_dicts.append(record | {"annotations": [ann for ann in annotations if ann is not None]})
    logger.info(f"Loaded {len(dataset_dicts)} images in COCO format from {json_file}")
    if num_dropped:
        logger.warning(f"{json_file}: dropped {num_dropped} annotations, none of whose polygons has three points")
    return dataset_dicts


def read_coco(json_file: Path) -> COCO:
    """Index a JSON file with pycocotools, without its output."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(PathManager.get_local_path(os.fspath(json_file)))


def _load_annotation(ann: dict[str, Any], id_map: dict[int, int]) -> dict[str, Any] | None:
    """Convert an annotation; None if all of its polygons have too few points."""
    assert not ann.get("ignore", 0), f"Annotation {ann['id']}: 'ignore' is not part of the COCO format; remove it"
    if "bbox" in ann and len(ann["bbox"]) == 0:
        raise ValueError(f"Annotation {ann['id']} of image {ann['image_id']}: 'bbox' is empty")
    if ann["category_id"] not in id_map:
        raise KeyError(f"Annotation {ann['id']}: category_id {ann['category_id']} is not one of the 'categories'")
    obj: dict[str, Any] = {key: ann[key] for key in ("iscrowd", "bbox") if key in ann}
    obj |= {"bbox_mode": BoxMode.XYWH_ABS, "category_id": id_map[ann["category_id"]]}
    if segm := ann.get("segmentation"):
        if isinstance(segm, list):
            segm = [polygon for polygon in segm if len(polygon) >= 6 and len(polygon) % 2 == 0]
            if not segm:
                return None
        elif isinstance(segm["counts"], list):
            segm = mask_util.frPyObjects(segm, *segm["size"])
        obj["segmentation"] = segm
    return obj


def convert_to_coco_json(dataset_name: str, output_file: str) -> None:
    """Write a dataset as a COCO JSON file, in one process, unless the file exists."""
    PathManager.mkdirs(os.path.dirname(output_file))
    with file_lock(output_file):
        if PathManager.exists(output_file):
            logger.warning(f"Using the existing file '{output_file}'; delete it if the dataset has changed")
            return
        logger.info(f"Writing the dataset '{dataset_name}' in COCO format to '{output_file}'")
        with atomic_write(output_file, "w") as f:
            json.dump(convert_to_coco_dict(dataset_name), f)


def convert_to_coco_dict(dataset_name: str) -> dict[str, Any]:
    """Return a dataset, whose metadata has `thing_classes`, in COCO format."""
    metadata = MetadataCatalog.get(dataset_name)
    classes = list(enumerate(metadata.thing_classes))
    id_map = metadata.get("thing_dataset_id_to_contiguous_id", {i: i for i, _ in classes})
    category_ids = {contiguous_id: category_id for category_id, contiguous_id in id_map.items()}
    images = []
    annotations: list[dict] = []
    for i, image in enumerate(DatasetCatalog.get(dataset_name)):
        image_id = image.get("image_id", i)
        size = {"width": int(image["width"]), "height": int(image["height"])}
        images.append({"id": image_id, **size, "file_name": str(image["file_name"])})
        for ann in image.get("annotations", []):
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category_ids[ann["category_id"]]}
            annotations.append(ids | _to_coco_annotation(ann))
    return {
        "info": {"date_created": str(datetime.datetime.now()), "description": f"Dataset '{dataset_name}'"},
        "images": images,
        "categories": [{"id": category_ids[i], "name": name} for i, name in classes],
        "licenses": None,
    } | ({"annotations": annotations} if annotations else {})


def _to_coco_annotation(ann: dict[str, Any]) -> dict[str, Any]:
    """Convert all but the ids; the area is that of the segmentation, if any."""
    xyxy, xywh = (
        [float(x) for x in BoxMode.convert(list(ann["bbox"]), ann["bbox_mode"], mode)]
        for mode in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    )
    coco_ann = {"bbox": [round(x, 3) for x in xywh], "iscrowd": int(ann.get("iscrowd", 0))}
    segm = ann.get("segmentation")
    if segm is None:
        return coco_ann | {"area": Boxes([xyxy]).area().item()}
    if isinstance(segm, list):
        area = PolygonMasks([segm]).area().item()
        polygons = [polygon if isinstance(polygon, list) else np.asarray(polygon).tolist() for polygon in segm]
        return coco_ann | {"area": area, "segmentation": polygons}
    counts = segm["counts"] if isinstance(segm["counts"], str) else segm["counts"].decode()
    return coco_ann | {"area": float(mask_util.area(segm)), "segmentation": segm | {"counts": counts}}
