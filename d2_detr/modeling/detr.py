"""Detr: DETR as a Detectron2 meta-architecture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from d2_detr.data.classes import resolve_num_classes
from d2_detr.errors import InputError
from d2_detr.modeling.autocast import autocast_dtype
from d2_detr.modeling.criterion import SetCriterion
from d2_detr.modeling.matcher import HungarianMatcher, Target
from d2_detr.modeling.network import DetrNetwork
from d2_detr.modeling.transformer import Transformer

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage, has_event_storage


@META_ARCH_REGISTRY.register()
class Detr(nn.Module):
    """Detectron2's inputs and outputs around DetrNetwork and SetCriterion."""

    @configurable
    def __init__(
        self,
        *,
        network: DetrNetwork,
        criterion: SetCriterion,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
    ):
        super().__init__()
        self.detr = network
        self.criterion = criterion
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        detr = cfg.MODEL.DETR
        num_classes = resolve_num_classes(cfg)
        backbone = build_backbone(cfg)
        network = DetrNetwork(
            backbone=backbone,
            backbone_channels=list(backbone.output_shape().values())[-1].channels,
            transformer=Transformer(
                hidden_dim=detr.HIDDEN_DIM,
                num_heads=detr.NHEADS,
                dim_feedforward=detr.DIM_FEEDFORWARD,
                encoder_layers=detr.ENC_LAYERS,
                decoder_layers=detr.DEC_LAYERS,
                dropout=detr.DROPOUT,
                pre_norm=detr.PRE_NORM,
            ),
            num_classes=num_classes,
            num_queries=detr.NUM_OBJECT_QUERIES,
            deep_supervision=detr.DEEP_SUPERVISION,
            autocast_dtype=autocast_dtype(cfg),
        )
        weights = {"l1_weight": detr.L1_WEIGHT, "giou_weight": detr.GIOU_WEIGHT}
        criterion = SetCriterion(
            num_classes=num_classes,
            matcher=HungarianMatcher(**weights),
            no_object_weight=detr.NO_OBJECT_WEIGHT,
            **weights,
        )
        return {
            "network": network,
            "criterion": criterion,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Detectron2's contract.

        Args:
            batched_inputs: for each picture `image` (3, H, W), values in [0, 255], channels as INPUT.FORMAT says; in
                training `instances` with gt_boxes and gt_classes; in inference `height`, `width` of the wanted output.

        Returns:
            In training the weighted losses (see SetCriterion), the errors going to the event storage. In inference,
            for each picture, `instances` of the Q queries: pred_boxes in pixels of height x width, scores (the
            likeliest class but no-object), pred_classes.
        """
        images = self._preprocess(batched_inputs)
        outputs = self.detr(images.tensor, padding_mask(images))
        if self.training:
            targets = [self._target(inputs["instances"]) for inputs in batched_inputs]
            losses, errors = self.criterion(outputs["pred_logits"], outputs["pred_boxes"], targets)
            if has_event_storage():
                get_event_storage().put_scalars(**errors)
            return losses
        sizes = [
            (inputs.get("height", h), inputs.get("width", w))
            for inputs, (h, w) in zip(batched_inputs, images.image_sizes, strict=True)
        ]
        last = zip(outputs["pred_logits"][-1], outputs["pred_boxes"][-1], sizes, strict=True)
        return [{"instances": detections(logits, boxes, size_hw)} for logits, boxes, size_hw in last]

    def _preprocess(self, batched_inputs: list[dict]) -> ImageList:
        images = [(inputs["image"].to(self.device) - self.pixel_mean) / self.pixel_std for inputs in batched_inputs]
        return ImageList.from_tensors(images)

    def _target(self, instances: Instances) -> Target:
        classes = instances.gt_classes
        num_classes = self.criterion.num_classes
        # Seen here because index K would be taken for "no object" without a word. Loaders give CPU tensors, so that
        # looking does not wait for the device.
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < num_classes:
            raise InputError(
                f"class ids {sorted(set(classes.tolist()))} in the ground truth, but MODEL.DETR.NUM_CLASSES is "
                f"{num_classes}: ids run from 0 to {num_classes - 1}; set it to the number of categories, or to -1"
            )
        height, width = instances.image_size
        boxes = instances.gt_boxes.tensor.to(self.device, torch.float32)
        boxes = box_convert(boxes, "xyxy", "cxcywh") / boxes.new_tensor([width, height, width, height])
        return {"labels": classes.to(self.device), "boxes": boxes}


def padding_mask(images: ImageList) -> Tensor:
    """(B, H, W), True where a picture of the batch was padded."""
    batch, _, height, width = images.tensor.shape
    mask = torch.ones(batch, height, width, dtype=torch.bool, device=images.tensor.device)
    for mask_per_image, (h, w) in zip(mask, images.image_sizes, strict=True):
        mask_per_image[:h, :w] = False
    return mask


def detections(logits: Tensor, boxes: Tensor, size_hw: tuple[int, int]) -> Instances:
    """Logits (Q, K + 1) and boxes (Q, 4), cxcywh in [0, 1] -> Instances in pixels of a picture of `size_hw`.

    Every query gives its likeliest class but no-object. Boxes are clipped to the picture; those that lie outside it
    altogether are left out.
    """
    height, width = size_hw
    scores, classes = logits.softmax(-1)[:, :-1].max(-1)
    instances = Instances(size_hw)
    instances.pred_boxes = Boxes(
        box_convert(boxes, "cxcywh", "xyxy") * boxes.new_tensor([width, height, width, height])
    )
    instances.pred_boxes.clip(size_hw)
    instances.scores = scores
    instances.pred_classes = classes
    return instances[instances.pred_boxes.nonempty()]
