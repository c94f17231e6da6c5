"""The DETR model; importing it registers `Detr` and the torchvision backbones."""

from d2_detr.modeling import backbone, detr  # noqa: F401 - only registration
