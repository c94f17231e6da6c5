"""Seeded images with ground truth, in the form that each implementation takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from d2_detr.modeling.detr import Detr
from d2_detr.modeling.matcher import Target
from d2_detr.utils.errors import InputError

from detectron2.structures import BitMasks, Boxes, Instances

MAX_OBJECTS = 14  # of an image; COCO has 7 on average
MIN_SHARE = 0.6  # of the smallest side in a padded batch, relative to the largest


@dataclass(frozen=True)
class Tensors:
    """A batch of B images as other implementations take it: normalized and padded before the time is measured.

    Args:
        images: (B, 3, H, W), zero on padding.
        padding_mask: (B, H, W), True on padding.
        targets: ground truth of each image; boxes are cxcywh in [0, 1] of the unpadded image.
        sizes_hw: (B, 2), int64, height and width of each unpadded image.
    """

    images: Tensor
    padding_mask: Tensor
    targets: list[Target]
    sizes_hw: Tensor


def draw_batch(
    batch_size: int,
    size_hw: tuple[int, int],
    *,
    num_classes: int,
    padded: bool = False,
    with_masks: bool = False,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Draw noise images with boxes, as input of Detr. The same arguments give the same batch.

    Args:
        size_hw: height and width of the largest image, in pixels.
        padded: give the images different sizes, so that all but the largest are padded.

    Raises:
        InputError: a number is not positive.
    """
    if min(batch_size, *size_hw) < 1:
        raise InputError(f"batch size {batch_size}, size {size_hw}: expected positive numbers")
    random = torch.Generator().manual_seed(seed)
    batch = []
    for i in range(batch_size):
        shares = torch.ones(2)
        if padded and i:
            shares = MIN_SHARE + (1 - MIN_SHARE) * torch.rand(2, generator=random)
        height, width = (max(1, int(side * share)) for side, share in zip(size_hw, shares, strict=True))
        batch.append(_draw_image((height, width), num_classes, with_masks, random))
    return batch


def to_tensors(model: Detr, batch: list[dict[str, Any]]) -> Tensors:
    """Normalize, pad and convert a batch with the functions of this project's model."""
    images = model.preprocess(batch)
    sizes_hw = torch.tensor([tuple(inputs["image"].shape[-2:]) for inputs in batch])
    rows, columns = (torch.arange(side) for side in images.tensor.shape[-2:])
    inside = (rows < sizes_hw[:, :1])[:, :, None] & (columns < sizes_hw[:, 1:])[:, None, :]
    targets = [model.prepare_target(inputs["instances"]) for inputs in batch]
    device = images.tensor.device
    return Tensors(images.tensor, (~inside).to(device), targets, sizes_hw.to(device))


def _draw_image(
    size_hw: tuple[int, int], num_classes: int, with_masks: bool, random: torch.Generator
) -> dict[str, Any]:
    height, width = size_hw
    num_objects = int(torch.randint(1, MAX_OBJECTS + 1, (), generator=random))
    corners = 0.6 * torch.rand(num_objects, 2, generator=random)
    sides = 0.1 + 0.3 * torch.rand(num_objects, 2, generator=random)
    instances = Instances(size_hw)
    instances.gt_boxes = Boxes(torch.cat((corners, corners + sides), 1) * torch.tensor([width, height] * 2))
    instances.gt_classes = torch.randint(num_classes, (num_objects,), generator=random)
    if with_masks:
        instances.gt_masks = BitMasks(torch.rand(num_objects, height, width, generator=random) > 0.5)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=random)
    return {"image": image, "instances": instances}
