"""The model. Importing this registers `Detr` and the torchvision backbones with Detectron2."""

from d2_detr.modeling import backbone, detr  # noqa: F401 - only registration
