"""Detr: DETR as a Detectron2 meta-architecture."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from d2_detr.data.datasets.classes import resolve_num_classes, resolve_stuff_classes
from d2_detr.modeling.autocast import autocast_dtype
from d2_detr.modeling.criterion import SetCriterion
from d2_detr.modeling.matcher import HungarianMatcher, Target
from d2_detr.modeling.network import DetrNetwork
from d2_detr.modeling.panoptic import Segmentation, panoptic_segmentation
from d2_detr.modeling.segmentation import PYRAMID, MaskInputs, binary_masks, of_picture
from d2_detr.modeling.transformer import Transformer
from d2_detr.structures.masks import bit_masks
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage, has_event_storage

# Of the finest feature map, times queries, that the mask head computes at once in inference.
CELLS_AT_ONCE = 2**18


@META_ARCH_REGISTRY.register()
class Detr(nn.Module):
    """Detectron2's inputs and outputs around DetrNetwork and SetCriterion."""

    @configurable
    def __init__(
        self,
        *,
        network: DetrNetwork,
        criterion: SetCriterion,
        score_threshold: float = 0.0,
        stuff_classes: tuple[int, ...] = (),
        panoptic_on: bool = False,
        panoptic_threshold: float = 0.85,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
    ):
        """
        Args:
            score_threshold: least score of what is given out in inference.
            stuff_classes: ids of the classes that are not countable.
            panoptic_on: give out panoptic segmentations, too.
            panoptic_threshold: least score of a query that takes part in them.
        """
        super().__init__()
        self.detr = network
        self.criterion = criterion
        self.score_threshold = score_threshold
        self.stuff_classes = stuff_classes
        self.panoptic_on = panoptic_on
        self.panoptic_threshold = panoptic_threshold
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        detr = cfg.MODEL.DETR
        num_classes = resolve_num_classes(cfg)
        if detr.PANOPTIC_ON and not cfg.MODEL.MASK_ON:
            raise InputError("MODEL.DETR.PANOPTIC_ON needs masks: set MODEL.MASK_ON True, or take a panoptic config")
        if detr.FROZEN_WEIGHTS and not cfg.MODEL.MASK_ON:
            raise InputError(
                "MODEL.DETR.FROZEN_WEIGHTS freezes a detector under a mask head, and without MODEL.MASK_ON nothing "
                "would be trained. To start from a checkpoint and train all of it set MODEL.WEIGHTS"
            )
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
            pyramid_channels=_pyramid_channels(backbone) if cfg.MODEL.MASK_ON else None,
            frozen=bool(detr.FROZEN_WEIGHTS),
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
            "score_threshold": detr.SCORE_THRESH_TEST,
            # Building a model of boxes asks for no data.
            "stuff_classes": resolve_stuff_classes(cfg) if detr.PANOPTIC_ON else tuple(detr.STUFF_CLASSES),
            "panoptic_on": detr.PANOPTIC_ON,
            "panoptic_threshold": detr.PANOPTIC_SCORE_THRESH,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict[str, Instances | Segmentation]]:
        """Detectron2's contract.

        Args:
            batched_inputs: for each picture `image` (3, H, W), values in [0, 255], channels as INPUT.FORMAT says; in
                training `instances` with gt_boxes, gt_classes and, for masks, gt_masks; in inference `height`, `width`
                of the wanted output, and `instances` if losses are wanted.

        Returns:
            In training the weighted losses (see SetCriterion), of a frozen detector only those of its mask head; the
            errors go to the event storage. In inference, for each picture, `instances` of the queries with a score of
            at least `score_threshold`: pred_boxes in pixels of height x width, scores (of the likeliest class but
            no-object), pred_classes, and with a mask head pred_masks (N, height, width), bool. In panoptic
            segmentation `panoptic_seg` as well (see panoptic_segmentation). Stuff is never among the instances. Where
            the truth was given, `losses` and `errors` of the picture by itself.
        """
        images = self._preprocess(batched_inputs)
        outputs = self.detr(images.tensor, padding_mask(images))
        if self.training:
            losses, errors = self._losses(outputs, [inputs["instances"] for inputs in batched_inputs])
            if has_event_storage():
                get_event_storage().put_scalars(**errors)
            return losses
        padded_hw = tuple(images.tensor.shape[-2:])
        results = []
        for i, (inputs, image_hw) in enumerate(zip(batched_inputs, images.image_sizes, strict=True)):
            of_this = _of_picture(outputs, i, image_hw, padded_hw)
            results.append(self._found(of_this, _wanted_size(inputs, image_hw)))
            if "instances" in inputs:
                results[-1]["losses"], results[-1]["errors"] = self._losses(of_this, [inputs["instances"]])
        return results

    def _losses(self, outputs: dict, truth: list[Instances]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        predict_masks = partial(self.detr.masks, outputs["mask_inputs"]) if self.detr.has_masks else None
        targets = [self._target(instances) for instances in truth]
        losses, errors = self.criterion(outputs["pred_logits"], outputs["pred_boxes"], targets, predict_masks)
        if self.detr.frozen:
            losses = {name: losses[name] for name in ("loss_mask", "loss_dice")}
        return losses, errors

    def _found(self, outputs: dict, size_hw: tuple[int, int]) -> dict[str, Instances | Segmentation]:
        """What was found in a single picture, at size_hw."""
        logits, boxes = outputs["pred_logits"][-1, 0], outputs["pred_boxes"][-1, 0]
        instances, queries = decode_detections(logits, boxes, size_hw, self.score_threshold)
        stuff_classes = torch.tensor(self.stuff_classes, dtype=torch.int64, device=self.device)
        things = ~torch.isin(instances.pred_classes, stuff_classes)
        result = {"instances": instances[things]}
        if self.detr.has_masks:
            mask_logits = self._mask_logits(outputs["mask_inputs"], queries)
            result["instances"].pred_masks = binary_masks(mask_logits[things], size_hw)
        if self.panoptic_on:
            result["panoptic_seg"] = panoptic_segmentation(
                logits[queries].softmax(-1),
                mask_logits,
                size_hw,
                stuff_classes=self.stuff_classes,
                score_threshold=self.panoptic_threshold,
            )
        return result

    def _mask_logits(self, inputs: MaskInputs, queries: Tensor) -> Tensor:
        """(N, H/4, W/4) of queries (N,) of a single picture, a few at a time for the memory."""
        at_once = max(1, CELLS_AT_ONCE // inputs.pyramid[-1].shape[-2:].numel())
        return torch.cat([self.detr.masks(inputs, torch.zeros_like(part), part) for part in queries.split(at_once)])

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
        target = {"labels": classes.to(self.device), "boxes": boxes}
        if self.detr.has_masks:
            target["masks"] = bit_masks(instances).to(self.device)
        return target


def padding_mask(images: ImageList) -> Tensor:
    """(B, H, W), True where a picture of the batch was padded."""
    batch, _, height, width = images.tensor.shape
    mask = torch.ones(batch, height, width, dtype=torch.bool, device=images.tensor.device)
    for mask_per_image, (h, w) in zip(mask, images.image_sizes, strict=True):
        mask_per_image[:h, :w] = False
    return mask


def _wanted_size(inputs: dict, image_hw: tuple[int, int]) -> tuple[int, int]:
    return inputs.get("height", image_hw[0]), inputs.get("width", image_hw[1])


def _of_picture(outputs: dict, picture: int, image_hw: tuple[int, int], padded_hw: tuple[int, int]) -> dict:
    """The outputs for one picture of a batch, as a batch of its own."""
    result = {name: outputs[name][:, picture : picture + 1] for name in ("pred_logits", "pred_boxes")}
    if "mask_inputs" in outputs:
        result["mask_inputs"] = of_picture(outputs["mask_inputs"], picture, image_hw, padded_hw)
    return result


def _pyramid_channels(backbone: Backbone) -> list[int]:
    shapes = backbone.output_shape()
    if missing := [name for name in PYRAMID if name not in shapes]:
        raise InputError(
            f"MODEL.MASK_ON needs the feature maps {', '.join(PYRAMID)} of the backbone; add {', '.join(missing)} to "
            f"MODEL.RESNETS.OUT_FEATURES {list(shapes)}"
        )
    return [shapes[name].channels for name in PYRAMID]


def decode_detections(
    logits: Tensor, boxes: Tensor, size_hw: tuple[int, int], score_threshold: float = 0.0
) -> tuple[Instances, Tensor]:
    """Instances in pixels of a picture of `size_hw`, and which query each is of, (N,).

    Every query gives its likeliest class but no-object. Boxes are clipped to the picture; those that lie outside it
    altogether are left out, and so are those with a lower score than the threshold.

    Args:
        logits: (Q, K + 1).
        boxes: (Q, 4), cxcywh in [0, 1] of the picture.
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
    keep = instances.pred_boxes.nonempty() & (scores >= score_threshold)
    return instances[keep], keep.nonzero().flatten()
