"""AdamW or SGD with a separate learning rate for the backbone, and DETR's gradient clipping."""

from __future__ import annotations

import torch
from torch import nn

from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode
from detectron2.solver.build import maybe_add_gradient_clipping

FULL_MODEL = "full_model"


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer that SOLVER describes.

    It has two groups: the backbone's parameters at BASE_LR * BACKBONE_MULTIPLIER, all others at BASE_LR. A multiplier
    of 0 freezes the backbone, as a rate of 0 does in native DETR, and a CLIP_VALUE of 0 does not clip.

    Raises:
        InputError: SOLVER.OPTIMIZER is neither "ADAMW" nor "SGD".
    """
    solver = cfg.SOLVER
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    backbone = [p for name, p in parameters.items() if is_backbone(name)]
    groups = [{"params": [p for name, p in parameters.items() if not is_backbone(name)], "lr": solver.BASE_LR}]
    if solver.BACKBONE_MULTIPLIER > 0:
        if backbone:
            groups.append({"params": backbone, "lr": solver.BASE_LR * solver.BACKBONE_MULTIPLIER})
    else:
        for parameter in backbone:
            parameter.requires_grad_(False)

    optimizer: torch.optim.Optimizer
    if solver.OPTIMIZER == "ADAMW":
        optimizer = torch.optim.AdamW(
            groups,
            lr=solver.BASE_LR,
            weight_decay=solver.WEIGHT_DECAY,
            # A GradScaler leaves it to a fused step to unscale, which would come after the gradients are clipped.
            fused=not solver.AMP.ENABLED,
        )
    elif solver.OPTIMIZER == "SGD":
        optimizer = torch.optim.SGD(
            groups, lr=solver.BASE_LR, momentum=solver.MOMENTUM, weight_decay=solver.WEIGHT_DECAY
        )
    else:
        raise InputError(f'SOLVER.OPTIMIZER {solver.OPTIMIZER!r}: expected "ADAMW" or "SGD"')

    clipping = solver.CLIP_GRADIENTS
    if not clipping.ENABLED or not clipping.CLIP_VALUE:
        return optimizer
    if clipping.CLIP_TYPE != FULL_MODEL:
        return maybe_add_gradient_clipping(cfg, optimizer)
    clip_full_model(optimizer, clipping.CLIP_VALUE, clipping.NORM_TYPE)
    return optimizer


def is_backbone(parameter_name: str) -> bool:
    """Return whether a parameter belongs to the backbone."""
    return "backbone" in parameter_name


def clip_full_model(optimizer: torch.optim.Optimizer, max_norm: float, norm_type: float = 2.0) -> None:
    """Before every step, scale all gradients so that their common norm is at most `max_norm`.

    Detectron2's own clipping treats each parameter separately. The hook runs after a GradScaler has unscaled.
    """

    def clip(*_: object) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)

    optimizer.register_step_pre_hook(clip)
