"""Steps with a loss or a gradient that is not finite: how they are noticed, saved and repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from d2_detr.checkpoint.save import save_torch
from d2_detr.data.seeding import seed_generators
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks

Batch = Sequence[dict[str, Any]]


class LastStep:
    """What a model was given in the last step of a training, and what it returned."""

    def __init__(self, model: nn.Module):
        """Watch a model."""
        self.batch: Batch = ()
        self.losses: Mapping[str, Tensor] = {}
        model.register_forward_pre_hook(self._keep_batch)
        model.register_forward_hook(self._keep_losses)

    def describe(self, error: Exception) -> str:
        """Return what is not finite, and in which images."""
        bad = [f"{name} is {loss.item()}" for name, loss in self.losses.items() if not torch.isfinite(loss)]
        names = ", ".join(str(record["file_name"]) for record in self.batch)
        return f"{', '.join(bad) or error} (images {names})"

    def _keep_batch(self, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        if model.training:
            self.batch = inputs[0]

    def _keep_losses(self, model: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        if model.training:
            self.losses = outputs


class NonFiniteGradientError(FloatingPointError):
    """A gradient is not finite. The parameters are those before the step."""


class CheckGradients(HookBase):
    """Raises NonFiniteGradientError between the backward pass and the optimizer's step.

    Of several processes all do, because their gradients are averaged.
    """

    def after_backward(self) -> None:
        """Check the gradients; a single number is read from the device."""
        gradients = {n: p.grad for n, p in self.trainer.model.named_parameters() if p.grad is not None}
        norms = torch.stack(torch._foreach_norm(list(gradients.values())))
        if not torch.isfinite(norms.sum()):
            finite = torch.isfinite(norms).tolist()
            name = next((n for n, is_finite in zip(gradients, finite, strict=True) if not is_finite), "all together")
            raise NonFiniteGradientError(f"the gradient of {name.removeprefix('module.')} is not finite")


def is_finite(model: nn.Module) -> bool:
    """Return whether all parameters and buffers are finite."""
    return all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def check_weights(model: nn.Module, iteration: int) -> None:
    """Check that a training has not diverged.

    Raises:
        InputError: a parameter or buffer is not finite.
    """
    if not is_finite(model):
        raise InputError(
            f"iteration {iteration}: the training has diverged, its weights are not finite. Lower the learning rate "
            "(--lr, SOLVER.BASE_LR). The checkpoint before is kept"
        )


def save_bad_step(path: Path, cfg: CfgNode, model: nn.Module, batch: Batch, *, key: tuple[int, ...]) -> None:
    """Write what `replay` needs to repeat a step.

    Args:
        path: file to write.
        cfg: the config of the model.
        model: with the parameters before the step.
        batch: the inputs of this process.
        key: of the step's random numbers, see seed_generators.
    """
    inputs = [{name: value for name, value in record.items() if name != "instances"} for record in batch]
    content = {
        "config": cfg.dump(),
        "model": model.state_dict(),
        "inputs": [_plain(record) for record in inputs],
        "targets": [_encode(record["instances"]) for record in batch],
        "key": key,
    }
    save_torch(content, path)


def replay(path: str | Path) -> tuple[dict[str, float], list[str]]:
    """Repeat a step that `save_bad_step` has written.

    Returns:
        The losses, and the names of the parameters whose gradient is not finite.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    cfg = CfgNode(yaml.safe_load(content["config"]))
    model = build_model(cfg).train()
    model.load_state_dict(content["model"])
    batch = [
        record | {"instances": _decode(target)}
        for record, target in zip(content["inputs"], content["targets"], strict=True)
    ]
    seed_generators(*content["key"])
    losses = model(batch)
    sum(losses.values()).backward()
    bad = [n for n, p in model.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
    return {name: loss.item() for name, loss in losses.items()}, bad


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what a file can contain that is read without running code."""
    return {name: value for name, value in record.items() if isinstance(value, Tensor | str | int | float)}


def _encode(instances: Instances) -> dict[str, Any]:
    fields = instances.get_fields()
    target = {
        "size_hw": tuple(instances.image_size),
        "boxes": fields["gt_boxes"].tensor,
        "classes": fields["gt_classes"],
    }
    masks = fields.get("gt_masks")
    if isinstance(masks, BitMasks):
        target["bitmasks"] = masks.tensor
    elif masks is not None:
        target["polygons"] = [[torch.as_tensor(polygon) for polygon in polygons] for polygons in masks.polygons]
    return target


def _decode(target: Mapping[str, Any]) -> Instances:
    instances = Instances(target["size_hw"], gt_boxes=Boxes(target["boxes"]), gt_classes=target["classes"])
    if "bitmasks" in target:
        instances.gt_masks = BitMasks(target["bitmasks"])
    if "polygons" in target:
        instances.gt_masks = PolygonMasks([[p.numpy() for p in polygons] for polygons in target["polygons"]])
    return instances
