"""DetrForObjectDetection of Hugging Face transformers."""

from __future__ import annotations

import copy
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2_detr.checkpoint.convert import canonicalize
from d2_detr.checkpoint.layouts import Format, from_canonical
from d2_detr.checkpoint.metadata import Metadata
from d2_detr.checkpoint.write import write_checkpoint
from d2_detr.engine.benchmark.batch import Tensors
from d2_detr.engine.benchmark.contestants import Contestant
from d2_detr.modeling.detr import Detr

from detectron2.config import CfgNode

NAME = "transformers"
DEFAULT_DROPOUT = "transformers, its dropout"
CAST_WEIGHTS = "transformers, cast weights"


def reason_to_leave_out(cfg: CfgNode) -> str | None:
    """Return why transformers cannot be compared; None if it can."""
    if not (find_spec("transformers") and find_spec("timm")):
        return "not installed: pip install 'd2_detr[benchmark]'"
    if cfg.MODEL.DETR.PRE_NORM:
        return "its transformer is always post-norm (MODEL.DETR.PRE_NORM)"
    if cfg.MODEL.DETR.L1_WEIGHT % 1 or cfg.MODEL.DETR.GIOU_WEIGHT % 1:
        return "its loss weights are whole numbers (MODEL.DETR.L1_WEIGHT, GIOU_WEIGHT)"
    return None


class HuggingFace(Contestant):
    """transformers with timm's ResNet, as this project's converter writes it, and its default attention, sdpa.

    With its own `auxiliary_loss` the decoder would be another model: each layer would get the normalized output of the
    one before. The losses of all layers are therefore computed with its loss function from the hidden states.
    """

    model: Any  # transformers is not imported before it is needed

    def __init__(
        self, name: str, cfg: CfgNode, weights: Detr, tensors: Tensors, precision: str, *, same_dropout: bool = True
    ):
        """Convert a model.

        Args:
            weights: the model of this project to convert.
            same_dropout: also on attention weights and inside the feed-forward blocks, where DETR has it and the
                default of transformers is 0.
        """
        from transformers import DetrImageProcessor  # takes seconds

        super().__init__(name, precision, _convert(weights, cfg, same_dropout), cfg)
        device = tensors.images.device
        self.model.to(device)
        self._inputs = {"pixel_values": tensors.images, "pixel_mask": (~tensors.padding_mask).long()}
        self._labels = [{"class_labels": target["labels"], "boxes": target["boxes"]} for target in tensors.targets]
        self._sizes_hw = tensors.sizes_hw
        self._threshold = cfg.MODEL.DETR.SCORE_THRESH_TEST
        self._processor = DetrImageProcessor()
        self._loss_config = copy.deepcopy(self.model.config)
        self._loss_config.auxiliary_loss = cfg.MODEL.DETR.DEEP_SUPERVISION
        config = self.model.config
        self._weights = {"ce": 1, "bbox": config.bbox_loss_coefficient, "giou": config.giou_loss_coefficient}

    def outputs(self) -> tuple[Tensor, Tensor]:
        """Return logits and boxes of all decoder layers."""
        with self.autocast(self._sizes_hw.device):
            hidden = self.model.model(**self._inputs, output_hidden_states=True)
            states = hidden.last_hidden_state[None]
            if self._loss_config.auxiliary_loss:
                # The first is the input of the decoder, the last is already normalized.
                earlier = torch.stack(hidden.decoder_hidden_states[1:-1])
                states = torch.cat([self.model.model.decoder.layernorm(earlier), states])
            logits, boxes = self.model.class_labels_classifier(states), self.model.bbox_predictor(states).sigmoid()
        return logits.float(), boxes.float()

    def losses(self) -> dict[str, Tensor]:
        """Return the losses of its loss function, weighted as it does."""
        logits, boxes = self.outputs()
        _, losses, _ = self.model.loss_function(
            logits[-1], self._labels, logits.device, boxes[-1], self._loss_config, logits, boxes
        )
        terms = {name: name.split("_")[1] for name in losses if name.startswith("loss_")}
        return {name: self._weights[term] * losses[name] for name, term in terms.items()}

    def detect(self) -> Any:
        """Return the detections of its image processor."""
        with self.autocast(self._sizes_hw.device):
            outputs = self.model(**self._inputs)
        return self._processor.post_process_object_detection(
            outputs, threshold=self._threshold, target_sizes=self._sizes_hw
        )


class DefaultDropout(HuggingFace):
    """transformers with its default dropout, which is less work in training and none of its own in inference."""

    detects = same_work = False

    def __init__(self, *args: Any):
        super().__init__(*args, same_dropout=False)


class CastHuggingFace(HuggingFace):
    """transformers in its best form of bfloat16 in inference: with weights and images cast, without autocast."""

    trains = False

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.model.to(torch.bfloat16)
        self._inputs["pixel_values"] = self._inputs["pixel_values"].bfloat16()

    def autocast(self, device: torch.device) -> Any:
        """Return a context without autocast."""
        return torch.autocast(device.type, enabled=False)


def _convert(weights: Detr, cfg: CfgNode, same_dropout: bool) -> Any:
    from transformers import DetrForObjectDetection
    from transformers.utils import logging

    logging.disable_progress_bar()
    detr = cfg.MODEL.DETR
    # The class head is copied as it is: `convert` would sort COCO's classes by category id.
    canonical, _ = canonicalize(weights.state_dict(), Format.PLUGIN)
    dropouts = dict.fromkeys(("attention_dropout", "activation_dropout"), detr.DROPOUT) if same_dropout else {}
    with tempfile.TemporaryDirectory() as folder:
        metadata = Metadata(num_heads=detr.NHEADS, dilation=cfg.MODEL.RESNETS.RES5_DILATION == 2)
        write_checkpoint(Path(folder), from_canonical(canonical, Format.HUGGING_FACE), Format.HUGGING_FACE, metadata)
        return DetrForObjectDetection.from_pretrained(  # nosec B615  # from the folder just written
            folder,
            dtype=torch.float32,
            dropout=detr.DROPOUT,
            bbox_cost=int(detr.L1_WEIGHT),
            giou_cost=int(detr.GIOU_WEIGHT),
            bbox_loss_coefficient=int(detr.L1_WEIGHT),
            giou_loss_coefficient=int(detr.GIOU_WEIGHT),
            eos_coefficient=detr.NO_OBJECT_WEIGHT,
            **dropouts,
        )
