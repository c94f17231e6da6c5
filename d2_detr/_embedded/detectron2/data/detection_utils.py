"""From image files and annotations to arrays and Instances."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from PIL import Image

from detectron2._missing import missing
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks, polygons_to_bitmask
from detectron2.utils.file_io import PathManager

from . import transforms as T
from .catalog import MetadataCatalog

_EXIF_ORIENTATION = 274
_UPRIGHT = {  # orientation: what turns the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class SizeMismatchError(ValueError):
    """An image does not have the size that its annotation states."""


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """Read an image (H, W, C), upright as its EXIF orientation says; `format` is "BGR" or a mode of Pillow's."""
    with PathManager.open(file_name, "rb") as f:
        image = Image.open(f)
        try:
            orientation = image.getexif().get(_EXIF_ORIENTATION)
        except Exception:  # malformed EXIF data raise anything, and say nothing about the pixels
            orientation = None
        if orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[orientation])
        if format == "BGR":
            return np.asarray(image.convert("RGB"))[:, :, ::-1]
        array = np.asarray(image.convert(format) if format else image)
        return array[:, :, None] if format == "L" else array


def check_image_size(dataset_dict: dict[str, Any], image: np.ndarray) -> None:
    """Compare the image with the "width" and "height" of its dict; what that lacks is filled in."""
    height, width = image.shape[:2]
    annotated = (dataset_dict.setdefault("width", width), dataset_dict.setdefault("height", height))
    if annotated != (width, height):
        name = dataset_dict.get("file_name", "The image")
        raise SizeMismatchError(
            f"{name} is {width} x {height} pixels; correct its annotation, which says {annotated[0]} x {annotated[1]}"
        )


def transform_instance_annotations(
    annotation: dict[str, Any], transforms: T.Transform | list[T.Transform], image_size: tuple[int, int]
) -> dict[str, Any]:
    """Transform the box and the segmentation of one instance in place; `image_size` is the new (height, width).

    The box becomes xyxy and is clipped to the image; polygons become (2P,) arrays, an RLE becomes an (H, W) mask.
    """
    if "keypoints" in annotation:
        raise NotImplementedError(missing("keypoints"))
    transforms = T.TransformList(transforms) if isinstance(transforms, (list, tuple)) else transforms
    height, width = image_size
    xyxy = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    annotation["bbox"] = transforms.apply_box(np.array([xyxy]))[0].clip(0, (width, height, width, height))
    annotation["bbox_mode"] = BoxMode.XYXY_ABS
    segm = annotation.get("segmentation")
    if isinstance(segm, list):
        polygons = transforms.apply_polygons([np.asarray(p).reshape(-1, 2) for p in segm])
        annotation["segmentation"] = [p.reshape(-1) for p in polygons]
    elif isinstance(segm, dict):
        annotation["segmentation"] = mask = transforms.apply_segmentation(mask_util.decode(segm))
        assert mask.shape[:2] == image_size, f"An RLE became a mask of {mask.shape}, in an image of {image_size}"
    elif "segmentation" in annotation:
        raise ValueError(f"A segmentation is a list of polygons or an RLE as a dict, got {segm!r:.80}")
    return annotation


def annotations_to_instances(
    annos: list[dict[str, Any]], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """The annotations of an image of (height, width) as `gt_boxes`, `gt_classes` and, if annotated, `gt_masks`.

    `mask_format` "polygon" gives PolygonMasks; "bitmask" gives BitMasks, from polygons, RLEs or (H, W) arrays.
    """
    if annos and "keypoints" in annos[0]:
        raise NotImplementedError(missing("keypoints"))
    target = Instances(image_size)
    boxes = [BoxMode.convert(obj["bbox"], obj["bbox_mode"], BoxMode.XYXY_ABS) for obj in annos]
    target.gt_boxes = Boxes(np.array(boxes))
    target.gt_classes = torch.tensor([int(obj["category_id"]) for obj in annos], dtype=torch.int64)
    if annos and "segmentation" in annos[0]:
        segms = [obj["segmentation"] for obj in annos]
        assert mask_format in ("polygon", "bitmask"), f"mask_format is 'polygon' or 'bitmask', got '{mask_format}'"
        if mask_format == "bitmask":
            target.gt_masks = BitMasks(np.stack([_to_mask(segm, image_size) for segm in segms]))
        elif all(isinstance(segm, list) for segm in segms):
            target.gt_masks = PolygonMasks(segms)
        else:
            raise ValueError("Not all segmentations are polygons: read the masks as 'bitmask' (INPUT.MASK_FORMAT)")
    return target


def _to_mask(segm: list | dict | np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """(H, W)"""
    if isinstance(segm, list):
        return polygons_to_bitmask(segm, *image_size)
    return mask_util.decode(segm) if isinstance(segm, dict) else segm


def filter_empty_instances(instances: Instances, *, by_mask: bool = True) -> Instances:
    """Keep what has a box with sides above 1e-5 pixels and, with `by_mask`, a mask that is not empty."""
    keep = instances.gt_boxes.nonempty(threshold=1e-5)
    if by_mask and instances.has("gt_masks"):
        keep &= instances.gt_masks.nonempty()
    return instances[keep]


def check_metadata_consistency(key: str, dataset_names: Sequence[str]) -> None:
    """Raise AttributeError if a dataset's metadata lack `key`, ValueError if two of them differ in it."""
    values = [getattr(MetadataCatalog.get(name), key) for name in dataset_names]
    if any(value != values[0] for value in values):
        raise ValueError(f"The datasets {', '.join(dataset_names)} do not have the same '{key}': {values}")
