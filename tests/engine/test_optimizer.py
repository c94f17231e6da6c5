import pytest
import torch
from torch import nn

from d2_detr.config import load_config
from d2_detr.engine.optimizer import build_optimizer, clip_full_model
from d2_detr.utils.errors import InputError


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.head = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


PLAIN_SGD = (
    "SOLVER.OPTIMIZER SGD SOLVER.BASE_LR 1.0 SOLVER.MOMENTUM 0.0 SOLVER.WEIGHT_DECAY 0.0 SOLVER.BACKBONE_MULTIPLIER 1.0"
)


def config(opts=""):
    return load_config("detr_256_6_6_torchvision.yaml", opts.split())


def test_param_groups_split_backbone_and_skip_frozen():
    model = Model()
    head, backbone = build_optimizer(config(), model).param_groups
    assert (head["lr"], backbone["lr"]) == (1e-4, pytest.approx(1e-5))
    assert head["weight_decay"] == backbone["weight_decay"] == 1e-4
    assert {id(p) for p in head["params"]} == {id(p) for p in model.head.parameters()}
    assert {id(p) for p in backbone["params"]} == {id(p) for p in model.backbone.parameters()}


def test_a_multiplier_of_zero_freezes_the_backbone():
    model = Model()
    assert len(build_optimizer(config("SOLVER.BACKBONE_MULTIPLIER 0.0"), model).param_groups) == 1
    assert not any(p.requires_grad for p in model.backbone.parameters())


@pytest.mark.parametrize(("name", "kind"), [("ADAMW", torch.optim.AdamW), ("SGD", torch.optim.SGD)])
def test_the_optimizer_is_chosen_by_name(name, kind):
    assert isinstance(build_optimizer(config(f"SOLVER.OPTIMIZER {name}"), Model()), kind)


def test_an_unknown_optimizer_is_refused():
    cfg = config()
    cfg.SOLVER.OPTIMIZER = "LION"
    with pytest.raises(InputError, match="SOLVER.OPTIMIZER 'LION'"):
        build_optimizer(cfg, Model())


@pytest.mark.parametrize("kind", ["full_model", "value", "norm"])
def test_a_clip_value_of_zero_does_not_clip(kind):
    model = Model()
    opts = f"{PLAIN_SGD} SOLVER.CLIP_GRADIENTS.CLIP_TYPE {kind} SOLVER.CLIP_GRADIENTS.CLIP_VALUE 0"
    optimizer, before = build_optimizer(config(opts), model), model.head.bias.clone()
    model.head.bias.grad = torch.full((2,), 50.0)
    optimizer.step()
    assert (before - model.head.bias).tolist() == pytest.approx([50, 50])


@pytest.mark.parametrize(("max_norm", "expected"), [(1.0, 1.0), (100.0, 5.0)], ids=["clipped", "small-enough"])
def test_full_model_clipping_bounds_the_total_gradient_norm(max_norm, expected):
    a, b = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 1.0}], lr=1.0)
    clip_full_model(optimizer, max_norm)
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    optimizer.step()
    step = torch.stack([a, b]).detach()
    assert step.norm().item() == pytest.approx(expected, rel=1e-4)
    assert (step[0] / step[1]).item() == pytest.approx(3 / 4)


def test_clipping_of_the_config_is_applied():
    model = Model()
    optimizer = build_optimizer(config(PLAIN_SGD), model)
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.full_like(p, 5.0) if p.requires_grad else None
    optimizer.step()
    moved = torch.cat([(p - q).flatten() for p, q in zip(model.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3), "CLIP_VALUE of the official wrapper's config"


def test_clipping_by_value_of_detectron2_works():
    model = Model()
    clipping = " SOLVER.CLIP_GRADIENTS.CLIP_TYPE value SOLVER.CLIP_GRADIENTS.CLIP_VALUE 0.5"
    optimizer = build_optimizer(config(PLAIN_SGD + clipping), model)
    before = model.head.bias.detach().clone()
    for p in model.parameters():
        p.grad = torch.full_like(p, 5.0) if p.requires_grad else None
    optimizer.step()
    torch.testing.assert_close(before - model.head.bias.detach(), torch.tensor([0.5, 0.5]))
