"""Convert image files and annotations to arrays and Instances."""

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

_EXIF_ORIENTATION = 274  # the tag; its values are 1 (upright) to 8
_UNDO = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90"
_TO_UPRIGHT = {orientation: Image.Transpose[name] for orientation, name in enumerate(_UNDO.split(), start=2)}


class SizeMismatchError(ValueError):
    """The size of an image is not the annotated one."""


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """Read an image (H, W, C), rotated upright, as "BGR" or in a mode of Pillow."""
    with PathManager.open(file_name, "rb") as f:
        image: Image.Image = Image.open(f)
        try:
            orientation = image.getexif().get(_EXIF_ORIENTATION)
        except Exception:  # Pillow raises various errors for malformed EXIF data, which do not affect the pixels
            orientation = None
        if orientation in _TO_UPRIGHT:
            image = image.transpose(_TO_UPRIGHT[orientation])
        if format == "BGR":
            return np.asarray(image.convert("RGB"))[:, :, ::-1]
        array = np.asarray(image.convert(format) if format else image)
        return array[:, :, None] if format == "L" else array


def check_image_size(dataset_dict: dict[str, Any], image: np.ndarray) -> None:
    """Verify "width" and "height" of a dataset dict, or set them if they are missing."""
    height, width = image.shape[:2]
    annotated = (dataset_dict.setdefault("width", width), dataset_dict.setdefault("height", height))
    if annotated != (width, height):
        name = dataset_dict.get("file_name", "The image")
        raise SizeMismatchError(
            f"{name}: {width} x {height} pixels, annotated as {annotated[0]} x {annotated[1]}; correct the annotation"
        )


def transform_instance_annotations(
    annotation: dict[str, Any], transforms: T.Transform | list[T.Transform], image_size: tuple[int, int]
) -> dict[str, Any]:
    """Transform the box and the segmentation of one instance in place.

    The box becomes xyxy, clipped to the image; polygons become (2P,) arrays, an RLE a mask (H, W). `image_size` is the
    (height, width) after the transforms.
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
        assert mask.shape[:2] == image_size, f"RLE: mask of size {mask.shape[:2]} for an image of {image_size}"
    elif "segmentation" in annotation:
        raise ValueError(f"segmentation: expected a list of polygons or an RLE (dict), got {segm!r:.80}")
    return annotation


def annotations_to_instances(
    annos: list[dict[str, Any]], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """Convert annotations to `gt_boxes`, `gt_classes` and, if annotated, `gt_masks`.

    `image_size` is (height, width). `mask_format` "polygon" gives PolygonMasks; "bitmask" gives BitMasks, which can
    also be read from RLEs or arrays (H, W).
    """
    if annos and "keypoints" in annos[0]:
        raise NotImplementedError(missing("keypoints"))
    target = Instances(image_size)
    boxes = [BoxMode.convert(obj["bbox"], obj["bbox_mode"], BoxMode.XYXY_ABS) for obj in annos]
    target.gt_boxes = Boxes(np.array(boxes))
    target.gt_classes = torch.tensor([int(obj["category_id"]) for obj in annos], dtype=torch.int64)
    if annos and "segmentation" in annos[0]:
        segms = [obj["segmentation"] for obj in annos]
        assert mask_format in ("polygon", "bitmask"), (
            f"mask_format: expected 'polygon' or 'bitmask', got '{mask_format}'"
        )
        if mask_format == "bitmask":
            target.gt_masks = BitMasks(np.stack([_to_mask(segm, image_size) for segm in segms]))
        elif all(isinstance(segm, list) for segm in segms):
            target.gt_masks = PolygonMasks(segms)
        else:
            raise ValueError("Not all segmentations are polygons; set INPUT.MASK_FORMAT to 'bitmask'")
    return target


def _to_mask(segm: list | dict | np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    if isinstance(segm, list):
        return polygons_to_bitmask(segm, *image_size)
    return mask_util.decode(segm) if isinstance(segm, dict) else segm


def filter_empty_instances(instances: Instances, *, by_mask: bool = True) -> Instances:
    """Keep instances with sides above 1e-5 pixels and (`by_mask`) a nonempty mask."""
    keep = instances.gt_boxes.nonempty(threshold=1e-5)
    if by_mask and instances.has("gt_masks"):
        keep &= instances.gt_masks.nonempty()
    return instances[keep]


def check_metadata_consistency(key: str, dataset_names: Sequence[str]) -> None:
    """Raise AttributeError if `key` is missing, ValueError if the datasets differ."""
    values = [getattr(MetadataCatalog.get(name), key) for name in dataset_names]
    if any(value != values[0] for value in values):
        raise ValueError(f"Datasets {', '.join(dataset_names)}: their '{key}' differ: {values}")
