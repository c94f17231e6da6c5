"""Check before any timing that the contestants compute the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from d2_detr.engine.benchmark.contestants import Contestant
from d2_detr.engine.optimizer import is_backbone
from d2_detr.utils.errors import InputError

# Largest difference of a figure, relative to its largest value. In float32 the outputs of a DETR-R50 that sums in
# another order differ by 1e-6, its gradients by 1e-4.
TOLERANCES = {"trainable parameters": 0.0, "gradient norm": 1e-3, "gradient norm of the backbone": 1e-3}
OUTPUT_TOLERANCE = 1e-4  # of logits, boxes and losses
_DROPOUTS = ("dropout", "attention_dropout", "activation_dropout")


def check_agreement(contestants: Sequence[Contestant]) -> dict[str, dict[str, float]]:
    """Compare each contestant with the first, in float32, in training mode without dropout.

    Returns:
        By name of the contestant and of the figure, the difference relative to the largest value.

    Raises:
        InputError: a figure differs by more than its tolerance; the message names it.
    """
    reference, *others = contestants
    expected = figures(reference)
    differences = {}
    for contestant in others:
        measured = figures(contestant)
        if missing := expected.keys() ^ measured.keys():
            raise InputError(f"{contestant.name} and {reference.name} differ in their losses: {', '.join(missing)}")
        differences[contestant.name] = {name: _difference(measured[name], value) for name, value in expected.items()}
        for name, difference in differences[contestant.name].items():
            tolerance = TOLERANCES.get(name, OUTPUT_TOLERANCE)
            if not difference <= tolerance:
                raise InputError(
                    f"{contestant.name} does not compute the same as {reference.name}: {name} with a difference of "
                    f"{difference:.2g}, relative to the largest value (tolerance {tolerance:g}). Their times are not "
                    "comparable; "
                    "--no-peers times only this project"
                )
    return differences


def figures(contestant: Contestant) -> dict[str, Tensor]:
    """Return what contestants must have in common: trainable parameters, outputs, losses and the gradient's norm."""
    parameters = {name: p for name, p in contestant.model.named_parameters() if p.requires_grad}
    contestant.model.train()
    with _without_dropout(contestant.model), torch.backends.cudnn.flags(allow_tf32=False):
        logits, boxes = contestant.outputs()
        losses = contestant.losses()
        contestant.model.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad.norm() for name, p in parameters.items() if p.grad is not None}
    contestant.model.zero_grad()
    backbone = [norm for name, norm in gradients.items() if is_backbone(name)]
    found = {
        "trainable parameters": torch.tensor(float(sum(p.numel() for p in parameters.values()))),
        "logits": logits,
        "boxes": boxes,
        **dict(sorted(losses.items())),
        "gradient norm": torch.stack(list(gradients.values())).norm(),
        "gradient norm of the backbone": torch.stack(backbone).norm() if backbone else torch.zeros(()),
    }
    return {name: figure.detach().double().cpu() for name, figure in found.items()}


def _difference(measured: Tensor, expected: Tensor) -> float:
    if measured.shape != expected.shape:
        return float("inf")
    return ((measured - expected).abs().max() / expected.abs().max().clamp(min=1e-12)).item()


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Set every probability of dropout to 0, whether it is a module's or an attribute of an attention module."""
    places: list[tuple[nn.Module, str]] = [(m, "p") for m in model.modules() if isinstance(m, nn.Dropout)]
    places += [(m, name) for m in model.modules() for name in _DROPOUTS if isinstance(getattr(m, name, None), float)]
    before = [getattr(module, name) for module, name in places]
    for module, name in places:
        setattr(module, name, 0.0)
    try:
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)
