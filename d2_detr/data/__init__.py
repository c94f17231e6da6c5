"""Datasets and what stands between them and the model. Importing this registers COCO's panoptic and the balloon
datasets."""

from d2_detr.data.datasets import balloon, builtin_panoptic  # noqa: F401 - only registration
