"""A small model, with or without a mask head, and inputs for it."""

import torch

from d2_detr.config import load_config

from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances

TINY = [
    "MODEL.DEVICE", "cpu", "MODEL.DETR.NUM_CLASSES", "2", "MODEL.DETR.DIM_FEEDFORWARD", "32",
    "MODEL.DETR.ENC_LAYERS", "1", "MODEL.DETR.DEC_LAYERS", "2", "MODEL.DETR.AUTOCAST", "off",
    "MODEL.RESNETS.NORM", "FrozenBN",
]  # fmt: skip
MASKS = ["MODEL.MASK_ON", "True"]


def tiny(*opts):
    torch.manual_seed(0)
    return build_model(load_config("detr_compact_balloon.yaml", [*TINY, *opts]))


def make_input(height, width, boxes=None, classes=None):
    """Return an input of Detr; `boxes` add instances whose masks fill their boxes."""
    generator = torch.Generator().manual_seed(height * width)
    inputs = {"image": torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)}
    if boxes is not None:
        masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
            mask[y0:y1, x0:x1] = True
        instances = inputs["instances"] = Instances((height, width))
        instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        instances.gt_masks = BitMasks(masks)
    return inputs


def batch():
    """Return two images of different sizes with three objects in total."""
    return [make_input(64, 48, [[4, 4, 20, 30], [20, 30, 44, 60]], [1, 0]), make_input(50, 60, [[10, 5, 40, 40]], [1])]
