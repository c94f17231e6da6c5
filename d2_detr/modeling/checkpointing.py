"""Activation checkpointing: less memory in training for more computation (Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def run_block(block: Callable[..., Tensor], *inputs: Any, recompute: bool) -> Tensor:
    """Return block(*inputs).

    With `recompute`, its activations are not kept for the backward pass, which computes them again, with the same
    dropout: the gradients are the same.
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)
