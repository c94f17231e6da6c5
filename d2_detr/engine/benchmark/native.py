"""Native DETR: the packages `models` and `util` of a clone of facebookresearch/detr on the Python path."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from d2_detr.checkpoint.convert import canonicalize
from d2_detr.checkpoint.layouts import Format, from_canonical
from d2_detr.engine.benchmark.batch import Tensors
from d2_detr.engine.benchmark.contestants import Contestant
from d2_detr.modeling.detr import Detr

from detectron2.config import CfgNode

NAME = "native DETR"


def reason_to_leave_out(cfg: CfgNode) -> str | None:
    """Return why native DETR cannot be compared; None if it can."""
    found = find_spec("models") and find_spec("util")
    if not (found and find_spec("models.matcher") and find_spec("util.misc")):
        return "not importable: git clone https://github.com/facebookresearch/detr, and set PYTHONPATH to the clone"
    return None


class Native(Contestant):
    """Native DETR with its own criterion and matcher."""

    def __init__(self, cfg: CfgNode, weights: Detr, tensors: Tensors, precision: str):
        """Convert a model.

        Args:
            weights: the model of this project to convert.
        """
        super().__init__(NAME, precision, _convert(weights, cfg), cfg)
        device = tensors.images.device
        self.model.to(device)
        detr, models = cfg.MODEL.DETR, import_module("models.detr")
        matcher = import_module("models.matcher").HungarianMatcher(1, detr.L1_WEIGHT, detr.GIOU_WEIGHT)
        self._weights = {"ce": 1, "bbox": detr.L1_WEIGHT, "giou": detr.GIOU_WEIGHT}
        self._criterion = models.SetCriterion(
            detr.NUM_CLASSES, matcher, {}, detr.NO_OBJECT_WEIGHT, ["labels", "boxes", "cardinality"]
        ).to(device)
        self._post_process = models.PostProcess()
        self._images = import_module("util.misc").NestedTensor(tensors.images, tensors.padding_mask)
        self._targets = tensors.targets
        self._sizes_hw = tensors.sizes_hw

    def outputs(self) -> tuple[Tensor, Tensor]:
        """Return logits and boxes of all decoder layers."""
        outputs = self._forward()
        layers = [*outputs.get("aux_outputs", []), outputs]
        logits, boxes = (torch.stack([layer[name] for layer in layers]) for name in ("pred_logits", "pred_boxes"))
        return logits, boxes

    def losses(self) -> dict[str, Tensor]:
        """Return the losses of its criterion, weighted as its training script does."""
        losses = self._criterion(self._forward(), self._targets)
        terms = {name: name.split("_")[1] for name in losses if name.startswith("loss_")}
        return {name: self._weights[term] * losses[name] for name, term in terms.items()}

    def detect(self) -> Any:
        """Return the detections of its postprocessor."""
        return self._post_process(self._forward(), self._sizes_hw)

    def _forward(self) -> dict[str, Any]:
        with self.autocast(self._sizes_hw.device):
            outputs = self.model(self._images)
        layers = [_float(layer) for layer in outputs.get("aux_outputs", [])]
        return _float(outputs) | ({"aux_outputs": layers} if layers else {})


def _float(outputs: dict[str, Any]) -> dict[str, Tensor]:
    return {name: outputs[name].float() for name in ("pred_logits", "pred_boxes")}


def _convert(weights: Detr, cfg: CfgNode) -> nn.Module:
    detr, depth = cfg.MODEL.DETR, cfg.MODEL.RESNETS.DEPTH
    backbone, positions = import_module("models.backbone"), import_module("models.position_encoding")
    # Its own Backbone downloads ImageNet weights.
    resnet = getattr(torchvision.models, f"resnet{depth}")(
        weights=None,
        norm_layer=backbone.FrozenBatchNorm2d,
        replace_stride_with_dilation=[False, False, cfg.MODEL.RESNETS.RES5_DILATION == 2],
    )
    channels = resnet.fc.in_features
    body = backbone.BackboneBase(resnet, train_backbone=True, num_channels=channels, return_interm_layers=False)
    joiner = backbone.Joiner(body, positions.PositionEmbeddingSine(detr.HIDDEN_DIM // 2, normalize=True))
    joiner.num_channels = channels
    transformer = import_module("models.transformer").Transformer(
        d_model=detr.HIDDEN_DIM,
        nhead=detr.NHEADS,
        num_encoder_layers=detr.ENC_LAYERS,
        num_decoder_layers=detr.DEC_LAYERS,
        dim_feedforward=detr.DIM_FEEDFORWARD,
        dropout=detr.DROPOUT,
        normalize_before=detr.PRE_NORM,
        return_intermediate_dec=True,
    )
    model = import_module("models.detr").DETR(
        joiner, transformer, detr.NUM_CLASSES, detr.NUM_OBJECT_QUERIES, aux_loss=detr.DEEP_SUPERVISION
    )
    canonical, _ = canonicalize(weights.state_dict(), Format.PLUGIN)
    model.load_state_dict(from_canonical(canonical, Format.NATIVE))
    return model
