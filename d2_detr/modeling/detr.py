"""Detr: DETR as a Detectron2 meta-architecture."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from d2_detr.config.checking import check_config
from d2_detr.modeling.autocast import autocast_dtype
from d2_detr.modeling.criterion import SetCriterion
from d2_detr.modeling.matcher import HungarianMatcher, Target
from d2_detr.modeling.network import DetrNetwork, Outputs
from d2_detr.modeling.panoptic import panoptic_segmentation
from d2_detr.modeling.segmentation import PYRAMID, MaskInputs, binary_masks, crop_to_image
from d2_detr.modeling.transformer import Transformer
from d2_detr.structures.masks import bit_masks
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage, has_event_storage

# Cells of the finest feature map times queries that the mask head processes in one call in inference.
MAX_CELLS_PER_CHUNK = 2**18


@META_ARCH_REGISTRY.register()
class Detr(nn.Module):
    """DetrNetwork and SetCriterion behind the interface of Detectron2."""

    pixel_mean: Tensor
    pixel_std: Tensor

    @configurable
    def __init__(
        self,
        *,
        network: DetrNetwork,
        criterion: SetCriterion,
        score_threshold: float,
        stuff_classes: tuple[int, ...] = (),
        panoptic_on: bool = False,
        panoptic_threshold: float,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
    ):
        """Configure inference and the normalization of images.

        Args:
            score_threshold: minimum score of a detection.
            stuff_classes: contiguous ids of the stuff classes.
            panoptic_on: return panoptic segmentations as well.
            panoptic_threshold: queries need a higher score than this to take part in a panoptic segmentation.

        Raises:
            InputError: `panoptic_on` with a network without mask head.
        """
        super().__init__()
        if panoptic_on and not network.has_masks:
            raise InputError("MODEL.DETR.PANOPTIC_ON needs masks: set MODEL.MASK_ON True, or use a panoptic config")
        self.detr = network
        self.criterion = criterion
        self.score_threshold = score_threshold
        self.stuff_classes = stuff_classes
        self.panoptic_on = panoptic_on
        self.panoptic_threshold = panoptic_threshold
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Translate MODEL and MODEL.DETR into the arguments of the constructor."""
        check_config(cfg)
        detr = cfg.MODEL.DETR
        if detr.NUM_CLASSES == -1:
            raise InputError(
                "MODEL.DETR.NUM_CLASSES is -1, which counts the classes of the training set: call "
                "d2_detr.config.resolve_config first (the tools do), or set the number"
            )
        if detr.FROZEN_WEIGHTS and not cfg.MODEL.MASK_ON:
            raise InputError(
                "MODEL.DETR.FROZEN_WEIGHTS freezes all but the mask head, so without MODEL.MASK_ON nothing would be "
                "trained; to fine-tune a whole checkpoint set MODEL.WEIGHTS instead"
            )
        backbone = build_backbone(cfg)
        network = DetrNetwork(
            backbone=backbone,
            backbone_channels=_channels(list(backbone.output_shape().values())[-1]),
            transformer=Transformer(
                hidden_dim=detr.HIDDEN_DIM,
                num_heads=detr.NHEADS,
                dim_feedforward=detr.DIM_FEEDFORWARD,
                encoder_layers=detr.ENC_LAYERS,
                decoder_layers=detr.DEC_LAYERS,
                dropout=detr.DROPOUT,
                pre_norm=detr.PRE_NORM,
                checkpoint_activations=detr.CHECKPOINT_ACTIVATIONS,
            ),
            num_classes=detr.NUM_CLASSES,
            num_queries=detr.NUM_OBJECT_QUERIES,
            deep_supervision=detr.DEEP_SUPERVISION,
            pyramid_channels=_pyramid_channels(backbone) if cfg.MODEL.MASK_ON else None,
            frozen=bool(detr.FROZEN_WEIGHTS),
            autocast_dtype=autocast_dtype(cfg),
        )
        weights = {"l1_weight": detr.L1_WEIGHT, "giou_weight": detr.GIOU_WEIGHT}
        matcher = HungarianMatcher(**weights)
        criterion = SetCriterion(
            num_classes=detr.NUM_CLASSES, matcher=matcher, no_object_weight=detr.NO_OBJECT_WEIGHT, **weights
        )
        return {
            "network": network,
            "criterion": criterion,
            "score_threshold": detr.SCORE_THRESH_TEST,
            "stuff_classes": tuple(detr.STUFF_CLASSES),
            "panoptic_on": detr.PANOPTIC_ON,
            "panoptic_threshold": detr.PANOPTIC_SCORE_THRESH,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        """Device of the model, to which inputs are moved."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Compute losses in training mode, predictions in evaluation mode.

        Args:
            batched_inputs: for each image `image` (3, H, W), values in [0, 255], channels in the order of INPUT.FORMAT.
                Training needs `instances` with gt_boxes, gt_classes and, for masks, gt_masks. In inference `height` and
                `width` are the output size (default: that of `image`), and `instances`, if given, yield losses.

        Returns:
            In training the weighted losses (see SetCriterion), with a frozen detector only those of the mask head; the
            errors go to the event storage. In inference a dict for each image:

            instances: detections with a score of at least `score_threshold`, without stuff: pred_boxes in pixels of
                height x width, scores and pred_classes of the highest-scoring class except no-object, and with a mask
                head pred_masks (N, height, width), bool.
            panoptic_seg: with `panoptic_on`, see panoptic_segmentation.
            losses, errors: of this image alone, if its ground truth was given.
        """
        images = self.preprocess(batched_inputs)
        outputs = self.detr(images.tensor, padding_mask(images))
        if self.training:
            losses, errors = self._losses(outputs, [inputs["instances"] for inputs in batched_inputs])
            if has_event_storage():
                storage = get_event_storage()
                for name, error in errors.items():
                    storage.put_scalar(name, error.item())
            return losses
        padded_hw = images.tensor.shape[-2], images.tensor.shape[-1]
        results = []
        for i, (inputs, image_hw) in enumerate(zip(batched_inputs, images.image_sizes, strict=True)):
            outputs_per_image = _select_image(outputs, i, image_hw, padded_hw)
            size_hw = inputs.get("height", image_hw[0]), inputs.get("width", image_hw[1])
            result = self._predict_image(outputs_per_image, size_hw)
            if "instances" in inputs:
                result["losses"], result["errors"] = self._losses(outputs_per_image, [inputs["instances"]])
            results.append(result)
        return results

    def _losses(self, outputs: Outputs, gt_instances: list[Instances]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        predict_masks = partial(self.detr.predict_masks, outputs["mask_inputs"]) if self.detr.has_masks else None
        targets = [self.prepare_target(instances) for instances in gt_instances]
        losses, errors = self.criterion(outputs["pred_logits"], outputs["pred_boxes"], targets, predict_masks)
        if self.detr.frozen:
            losses = {name: losses[name] for name in ("loss_mask", "loss_dice")}
        return losses, errors

    def _predict_image(self, outputs: Outputs, size_hw: tuple[int, int]) -> dict[str, Any]:
        """Return the predictions at size_hw, given the outputs for a batch of one image."""
        logits, boxes = outputs["pred_logits"][-1, 0], outputs["pred_boxes"][-1, 0]
        instances, queries = decode_detections(logits, boxes, size_hw, score_threshold=self.score_threshold)
        is_thing = self.is_thing(instances.pred_classes)
        result: dict[str, Any] = {"instances": instances[is_thing]}
        if self.detr.has_masks:
            mask_logits = self._mask_logits(outputs["mask_inputs"], queries)
            result["instances"].pred_masks = binary_masks(mask_logits[is_thing], size_hw)
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
        """Return the mask logits (N, H/4, W/4) of queries (N,) of one image."""
        chunks = queries.split(max(1, MAX_CELLS_PER_CHUNK // inputs.pyramid[-1].shape[-2:].numel()))
        return torch.cat([self.detr.predict_masks(inputs, torch.zeros_like(chunk), chunk) for chunk in chunks])

    def is_thing(self, classes: Tensor) -> Tensor:
        """Return which classes (N,) are things, not stuff."""
        return ~torch.isin(classes, torch.tensor(self.stuff_classes, dtype=torch.int64, device=classes.device))

    def preprocess(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Return the batch of the normalized images."""
        images = [(inputs["image"].to(self.device) - self.pixel_mean) / self.pixel_std for inputs in batched_inputs]
        return ImageList.from_tensors(images)

    def prepare_target(self, instances: Instances) -> Target:
        """Convert the ground truth of one image, in pixels, for the criterion.

        Raises:
            InputError: a class id is not below MODEL.DETR.NUM_CLASSES.
        """
        classes = instances.gt_classes
        num_classes = self.criterion.num_classes
        # Index K would silently mean no-object. Data loaders return CPU tensors, so this check does not synchronize.
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < num_classes:
            raise InputError(
                f"class ids {sorted(set(classes.tolist()))} in the ground truth, but MODEL.DETR.NUM_CLASSES is "
                f"{num_classes} (ids 0 to {num_classes - 1}); set it to the number of categories, or to -1 to count"
            )
        height, width = instances.image_size
        boxes = instances.gt_boxes.tensor.to(self.device, torch.float32)
        boxes = box_convert(boxes, "xyxy", "cxcywh") / boxes.new_tensor([width, height, width, height])
        target = Target(labels=classes.to(self.device), boxes=boxes)
        if self.detr.has_masks:
            target["masks"] = bit_masks(instances).to(self.device)
        return target


def padding_mask(images: ImageList) -> Tensor | None:
    """Return a mask (B, H, W) that is True on the padding of each image in the batch, None without any padding."""
    batch, _, height, width = images.tensor.shape
    if all(tuple(size_hw) == (height, width) for size_hw in images.image_sizes):
        return None
    mask = torch.ones(batch, height, width, dtype=torch.bool, device=images.tensor.device)
    for mask_per_image, (h, w) in zip(mask, images.image_sizes, strict=True):
        mask_per_image[:h, :w] = False
    return mask


def _select_image(outputs: Outputs, index: int, image_hw: tuple[int, int], padded_hw: tuple[int, int]) -> Outputs:
    """Return the outputs for one image of a batch, as a batch of one."""
    image = slice(index, index + 1)
    selected = Outputs(pred_logits=outputs["pred_logits"][:, image], pred_boxes=outputs["pred_boxes"][:, image])
    if "mask_inputs" in outputs:
        selected["mask_inputs"] = crop_to_image(outputs["mask_inputs"], index, image_hw, padded_hw)
    return selected


def _pyramid_channels(backbone: Backbone) -> list[int]:
    shapes = backbone.output_shape()
    if missing := [name for name in PYRAMID if name not in shapes]:
        raise InputError(
            f"MODEL.MASK_ON needs {', '.join(PYRAMID)} of the backbone; add {', '.join(missing)} to "
            f"MODEL.RESNETS.OUT_FEATURES {list(shapes)}"
        )
    return [_channels(shapes[name]) for name in PYRAMID]


def _channels(shape: ShapeSpec) -> int:
    if shape.channels is None:
        raise InputError("MODEL.BACKBONE.NAME: the output_shape() of this backbone lacks the number of channels")
    return shape.channels


def decode_detections(
    logits: Tensor, boxes: Tensor, size_hw: tuple[int, int], *, score_threshold: float
) -> tuple[Instances, Tensor]:
    """Convert the outputs of a decoder layer for one image to instances in pixels.

    Each query yields its highest-scoring class except no-object. Boxes are clipped to the image; those entirely outside
    it are dropped.

    Args:
        logits: (Q, K + 1).
        boxes: (Q, 4), cxcywh in [0, 1] of the image.
        size_hw: height and width of the image.
        score_threshold: minimum score of a detection.

    Returns:
        N instances, and the index (N,) of each one's query.
    """
    height, width = size_hw
    scores, classes = logits.softmax(-1)[:, :-1].max(-1)
    pred_boxes = Boxes(box_convert(boxes, "cxcywh", "xyxy") * boxes.new_tensor([width, height, width, height]))
    pred_boxes.clip(size_hw)
    keep = pred_boxes.nonempty() & (scores >= score_threshold)
    instances = Instances(size_hw, pred_boxes=pred_boxes, scores=scores, pred_classes=classes)
    return instances[keep], keep.nonzero().flatten()
