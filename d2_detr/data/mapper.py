"""Mapping from a dataset dict of Detectron2 to the input of Detr."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2_detr.data.annotations import (
    Annotation,
    Record,
    annotated_wh,
    mask_problem,
    read_annotations,
    record_annotations,
)
from d2_detr.data.augmentation import build_augmentations
from d2_detr.data.images import read_image
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import Instances


def image_to_tensor(image: np.ndarray) -> Tensor:
    """Convert an image (H, W, 3) to a tensor (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


class DetrDatasetMapper:
    """Read an image, augment it with its annotations, and convert both to tensors."""

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        with_instances: bool = False,
        augmentations: list[T.Augmentation],
        crop_augmentations: list[T.Augmentation] | None,
        image_format: str,
        mask_format: str | None = None,
    ):
        """Initialize a mapper.

        Args:
            is_train: use `crop_augmentations` for half of the images.
            with_instances: add the ground truth as `instances`; it is always added in training.
            augmentations: applied to every image.
            crop_augmentations: applied instead of `augmentations`; None for no crop.
            image_format: "RGB" or "BGR".
            mask_format: None for boxes only; "bitmask", or "polygon", which keeps the polygons of images without RLEs.
        """
        self.is_train = is_train
        self.with_instances = is_train or with_instances
        self.augmentations = augmentations
        self.crop_augmentations = crop_augmentations
        self.image_format = image_format
        self.mask_format = mask_format

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True, *, with_instances: bool = False) -> dict[str, Any]:
        """Return the arguments that a config gives."""
        augmentations, crop_augmentations = build_augmentations(cfg, is_train)
        return {
            "is_train": is_train,
            "with_instances": with_instances,
            "augmentations": augmentations,
            "crop_augmentations": crop_augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "mask_format": cfg.INPUT.MASK_FORMAT if cfg.MODEL.MASK_ON else None,
        }

    def __call__(self, dataset_dict: Record) -> Record:
        """Return the dict with `image` and `instances` in place of `annotations`.

        Returns:
            `image` (3, H, W), uint8. `instances`, if requested and annotated, without crowds and boxes of zero area.

        Raises:
            FileNotFoundError: the image, or the PNG of a panoptic dataset, does not exist.
            InputError: the image cannot be read, or an object has no mask.
        """
        record = dict(dataset_dict)  # a shallow copy: nested values are not modified
        image = read_image(record["file_name"], self.image_format, annotated_wh=annotated_wh(record))
        record.setdefault("height", image.shape[0])
        record.setdefault("width", image.shape[1])

        augmentations = self.augmentations
        if self.is_train and self.crop_augmentations and np.random.rand() < 0.5:
            augmentations = self.crop_augmentations
        aug_input = T.AugInput(image)
        transforms = T.AugmentationList(augmentations)(aug_input)
        image = aug_input.image
        record["image"] = image_to_tensor(image)

        if self.with_instances and ("annotations" in record or "segments_info" in record):
            record["instances"] = self._instances(self._annotations(record), transforms, image.shape[:2])
        record.pop("annotations", None)
        return record

    def _annotations(self, record: Record) -> list[Annotation]:
        if not self.mask_format:
            return record_annotations(record)
        annotations = read_annotations(record)
        if problem := next(filter(None, map(mask_problem, annotations)), None):
            raise InputError(f"{record['file_name']}: {problem}")
        return annotations

    def _instances(
        self, annotations: list[Annotation], transforms: T.TransformList, size_hw: tuple[int, int]
    ) -> Instances:
        unused = {"keypoints"} if self.mask_format else {"keypoints", "segmentation"}
        kept = [
            {key: value for key, value in annotation.items() if key not in unused}
            # Detectron2's transforms keep integers as integers, which would truncate resized boxes.
            | {"bbox": [float(x) for x in annotation["bbox"]]}
            for annotation in annotations
            if not annotation.get("iscrowd", 0)
        ]
        has_rle = any(isinstance(annotation.get("segmentation"), dict) for annotation in kept)
        transformed = [utils.transform_instance_annotations(annotation, transforms, size_hw) for annotation in kept]
        mask_format = "bitmask" if has_rle else self.mask_format or "polygon"
        instances = utils.annotations_to_instances(transformed, size_hw, mask_format)
        # An object with a box is kept even if its mask is empty at a low resolution.
        return utils.filter_empty_instances(instances, by_mask=False)
