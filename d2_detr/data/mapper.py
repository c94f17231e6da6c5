"""From a Detectron2 dataset dict to the input of Detr."""

from __future__ import annotations

import numpy as np
import torch

from d2_detr.data.augmentation import build_augmentations
from d2_detr.data.datasets.panoptic import objects_of, read_segments
from d2_detr.data.images import read_image
from d2_detr.data.validation.masks import mask_problem
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T


class DetrDatasetMapper:
    """Read a picture, augment picture and annotations alike, make tensors."""

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        with_truth: bool | None = None,
        augmentations: list[T.Augmentation],
        crop_augmentations: list[T.Augmentation] | None,
        image_format: str,
        mask_format: str | None = None,
    ):
        """In training half of the pictures take `crop_augmentations` instead, where there are any.

        Args:
            with_truth: add the annotated objects as `instances`; None does so in training alone.
            mask_format: None for boxes only, else "polygon" or "bitmask".
        """
        self.is_train = is_train
        self.with_truth = is_train if with_truth is None else with_truth
        self.augmentations = augmentations
        self.crop_augmentations = crop_augmentations
        self.image_format = image_format
        self.mask_format = mask_format

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True, *, with_truth: bool | None = None) -> dict:
        augmentations, crop_augmentations = build_augmentations(cfg, is_train)
        return {
            "is_train": is_train,
            "with_truth": with_truth,
            "augmentations": augmentations,
            "crop_augmentations": crop_augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "mask_format": cfg.INPUT.MASK_FORMAT if cfg.MODEL.MASK_ON else None,
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """Add `image` (3, H, W) uint8 and, with truth, `instances` without crowds and without boxes of no area."""
        dataset_dict = dict(dataset_dict)  # nothing below it is changed in place
        image = read_image(dataset_dict["file_name"], self.image_format, annotated_wh=_annotated_wh(dataset_dict))
        dataset_dict.setdefault("height", image.shape[0])
        dataset_dict.setdefault("width", image.shape[1])

        augmentations = self.augmentations
        if self.is_train and self.crop_augmentations and np.random.rand() < 0.5:
            augmentations = self.crop_augmentations
        aug_input = T.AugInput(image)
        transforms = T.AugmentationList(augmentations)(aug_input)
        image = aug_input.image
        dataset_dict["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

        if self.with_truth and ("annotations" in dataset_dict or "segments_info" in dataset_dict):
            dataset_dict["instances"] = self._instances(self._annotations(dataset_dict), transforms, image.shape[:2])
        dataset_dict.pop("annotations", None)
        return dataset_dict

    def _annotations(self, dataset_dict: dict) -> list[dict]:
        if not self.mask_format:
            return objects_of(dataset_dict)
        annotations = read_segments(dataset_dict)
        if problem := next(filter(None, (mask_problem(a, self.mask_format) for a in annotations)), None):
            raise InputError(f"{dataset_dict['file_name']}: {problem}")
        return annotations

    def _instances(self, annotations: list[dict], transforms: T.TransformList, size_hw: tuple[int, int]):
        unused = {"keypoints"} if self.mask_format else {"keypoints", "segmentation"}
        kept = [
            {key: value for key, value in annotation.items() if key not in unused}
            # Detectron2's transforms keep integers integers: every resize would cut off up to a pixel.
            | {"bbox": [float(x) for x in annotation["bbox"]]}
            for annotation in annotations
            if not annotation.get("iscrowd", 0)
        ]
        transformed = [utils.transform_instance_annotations(annotation, transforms, size_hw) for annotation in kept]
        instances = utils.annotations_to_instances(transformed, size_hw, self.mask_format or "polygon")
        # Empty masks stay in: a box decides what is an object, and its mask may vanish at low resolution.
        return utils.filter_empty_instances(instances, by_mask=False)


def _annotated_wh(dataset_dict: dict) -> tuple[int, int] | None:
    return (dataset_dict["width"], dataset_dict["height"]) if "width" in dataset_dict else None
