"""What is compared: an implementation of DETR at a precision, ready to train on one batch and to detect in it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from d2_detr.engine.benchmark.batch import Tensors, to_tensors
from d2_detr.engine.optimizer import build_optimizer, is_backbone
from d2_detr.modeling.detr import Detr

from detectron2.config import CfgNode
from detectron2.modeling import build_model

OURS = "d2_detr"
PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bf16": torch.bfloat16}


class Contestant(ABC):
    """An implementation; all train the same parameters with the same optimizer and the same clipping of gradients.

    Args:
        trains: its training step is measured.
        detects: its inference is measured.
        same_work: what is measured is what this project does; False if it is less.
    """

    trains = detects = same_work = True

    def __init__(self, name: str, precision: str, model: nn.Module, cfg: CfgNode):
        """Add the optimizer of a config to a model.

        Args:
            name: of the implementation, in tables.
            precision: a key of PRECISIONS; "bf16" is bfloat16 by autocast, with weights and losses in float32.
        """
        freeze_backbone(model, cfg.MODEL.BACKBONE.FREEZE_AT)
        self.name = name
        self.precision = precision
        self.model = model
        self.optimizer = build_optimizer(cfg, model)

    def train_step(self) -> None:
        """Compute the losses and their gradients, clip these, and update the parameters."""
        self.model.train()
        self.optimizer.zero_grad()
        torch.stack(list(self.losses().values())).sum().backward()
        self.optimizer.step()

    @torch.no_grad()
    def infer(self) -> Any:
        """Return the detections in the images of the batch, in the form of the implementation."""
        self.model.eval()
        return self.detect()

    @abstractmethod
    def outputs(self) -> tuple[Tensor, Tensor]:
        """Return logits (L, B, Q, K + 1) and boxes (L, B, Q, 4) of the decoder layers, as Outputs has them."""

    @abstractmethod
    def losses(self) -> dict[str, Tensor]:
        """Return the weighted losses of all decoder layers by SetCriterion's names."""

    @abstractmethod
    def detect(self) -> Any:
        """Return detections, including the conversion of the outputs to boxes in pixels."""

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """Return the context in which the network of another implementation runs."""
        dtype = PRECISIONS[self.precision]
        return torch.autocast(device.type, dtype) if dtype else nullcontext()


class Ours(Contestant):
    """This project. It normalizes and pads the images in every step, which other implementations leave to loaders."""

    model: Detr

    def __init__(self, cfg: CfgNode, batch: list[dict[str, Any]], precision: str):
        super().__init__(OURS, precision, seeded_model(cfg, precision), cfg)
        self._batch = batch
        self._images = [{"image": inputs["image"]} for inputs in batch]  # with ground truth there would be losses, too

    def outputs(self) -> tuple[Tensor, Tensor]:
        """Return logits and boxes of all decoder layers."""
        tensors = self.tensors()
        outputs = self.model.detr(tensors.images, tensors.padding_mask)
        return outputs["pred_logits"], outputs["pred_boxes"]

    def losses(self) -> dict[str, Tensor]:
        """Return the losses of Detr."""
        return self.model(self._batch)

    def detect(self) -> Any:
        """Return the predictions of Detr."""
        return self.model(self._images)

    def tensors(self) -> Tensors:
        """Return the batch as other implementations take it."""
        return to_tensors(self.model, self._batch)


def seeded_model(cfg: CfgNode, precision: str, seed: int = 0) -> Detr:
    """Build this project's model; the weights depend only on the seed.

    The norms of an untrained ResNet are the identity, so that its outputs grow with every block, and rounding errors
    with them. The last norm of each block is scaled down, as training does.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DETR.AUTOCAST = "bf16" if PRECISIONS[precision] else "off"
    torch.manual_seed(seed)
    model: Any = build_model(cfg)
    state_dict = model.state_dict()
    last_norm = "bn3" if any(".bn3." in name for name in state_dict) else "bn2"
    scaled = {name: 0.25 * weight for name, weight in state_dict.items() if name.endswith(f".{last_norm}.weight")}
    model.load_state_dict(state_dict | scaled)
    return model


def freeze_backbone(model: nn.Module, freeze_at: int) -> None:
    """Freeze the stem (`freeze_at` 1), also layer1 (2), and so on, of a ResNet with torchvision's names.

    All later layers are trained.
    Native DETR always freezes the first two, transformers 5 none of them with timm's ResNet.
    """
    for name, parameter in model.named_parameters():
        if is_backbone(name):
            layer = re.search(r"\.layer(\d)\.", name)
            parameter.requires_grad_(freeze_at < (int(layer[1]) + 1 if layer else 1))
