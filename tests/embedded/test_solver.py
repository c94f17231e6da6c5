import math

import pytest
import torch
from torch import nn

import d2_detr  # noqa: F401  (settles which detectron2 answers)

from detectron2.config import get_cfg
from detectron2.solver import (
    LRMultiplier,
    WarmupParamScheduler,
    build_lr_scheduler,
    build_optimizer,
    get_default_optimizer_params,
)
from detectron2.solver.build import maybe_add_gradient_clipping


def config(**solver):
    cfg = get_cfg()
    for key, value in {"MAX_ITER": 10, "BASE_LR": 1.0, "WARMUP_ITERS": 4, "WARMUP_FACTOR": 0.2, **solver}.items():
        cfg.SOLVER[key] = value
    return cfg


def cosine(i, end=0.0):
    return end + (1 - end) * (1 + math.cos(math.pi * i / 10)) / 2


def ramp(start, end, steps=4):
    return [start + (end - start) * i / steps for i in range(steps)]


def learning_rates(cfg, optimizer):
    """The rates of all groups in each of the 10 iterations."""
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = [[group["lr"] for group in optimizer.param_groups]]
    for _ in range(9):
        optimizer.step()
        scheduler.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    return rates


STEPS = {"LR_SCHEDULER_NAME": "WarmupMultiStepLR", "STEPS": (6, 8), "GAMMA": 0.1}
COSINE = {"LR_SCHEDULER_NAME": "WarmupCosineLR"}
FIXED = {"LR_SCHEDULER_NAME": "WarmupStepWithFixedGammaLR", "GAMMA": 0.1, "NUM_DECAYS": 4}


@pytest.mark.parametrize(
    ("solver", "expected"),
    [
        (STEPS, [*ramp(0.2, 1), 1, 1, 0.1, 0.1, 0.01, 0.01]),
        ({**STEPS, "WARMUP_METHOD": "constant"}, [0.2] * 4 + [1, 1, 0.1, 0.1, 0.01, 0.01]),
        ({**STEPS, "WARMUP_ITERS": 0}, [1] * 6 + [0.1, 0.1, 0.01, 0.01]),
        ({**STEPS, "WARMUP_ITERS": 1000}, ramp(0.2, 0.01, steps=10)),
        (COSINE, [*ramp(0.2, cosine(4)), *(cosine(i) for i in range(4, 10))]),
        ({**COSINE, "BASE_LR_END": 0.5}, [*ramp(0.2, cosine(4, 0.5)), *(cosine(i, 0.5) for i in range(4, 10))]),
        (FIXED, [*ramp(0.2, 0.01), 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4]),
        ({**FIXED, "WARMUP_ITERS": 5, "RESCALE_INTERVAL": True}, [*ramp(0.2, 1, 5), 1, 0.1, 0.01, 1e-3, 1e-4]),
    ],
    ids=["steps", "constant-warmup", "no-warmup", "only-warmup", "cosine", "cosine-end", "fixed", "fixed-rescaled"],
)
def test_learning_rate_at_each_iteration(solver, expected):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    assert [rate for (rate,) in learning_rates(config(**solver), optimizer)] == pytest.approx(expected)


def test_groups_keep_their_ratio():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    for large, small in learning_rates(config(**STEPS), torch.optim.SGD(groups, lr=9.0)):
        assert small == pytest.approx(large / 10)


def test_steps_beyond_the_end_are_ignored_with_a_warning(caplog):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = learning_rates(config(**{**STEPS, "STEPS": (6, 80), "WARMUP_ITERS": 0}), optimizer)
    assert [rate for (rate,) in rates] == pytest.approx([1] * 6 + [0.1] * 4)
    assert "SOLVER.STEPS" in caplog.text


@pytest.mark.parametrize("solver", [{"LR_SCHEDULER_NAME": "Nonsense"}, {"WARMUP_METHOD": "nonsense"}], ids=str)
def test_unknown_names_are_refused(solver):
    with pytest.raises(ValueError, match=r"(?i)nonsense"):
        build_lr_scheduler(config(**solver), torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0))


def test_schedule_resumes_from_base_lrs_and_iteration_alone():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build_lr_scheduler(config(**STEPS), optimizer)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    assert isinstance(scheduler, LRMultiplier)
    assert scheduler.state_dict() == {"base_lrs": [1.0], "last_epoch": 5}

    resumed = build_lr_scheduler(config(**STEPS), torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=9.0))
    resumed.load_state_dict(scheduler.state_dict())
    assert resumed.get_lr() == [1.0]


def test_multiplier_must_be_a_schedule():
    with pytest.raises(ValueError, match="ParamScheduler"):
        LRMultiplier(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), lambda where: 1.0, max_iter=10)


def test_warmup_ends_at_the_schedule_it_precedes():
    from fvcore.common.param_scheduler import LinearParamScheduler

    warmup = WarmupParamScheduler(LinearParamScheduler(1.0, 0.0), 0.5, 0.5)
    assert [warmup(x) for x in (0.0, 0.25, 0.5, 0.75)] == pytest.approx([0.5, 0.5, 0.5, 0.25])


class Model(nn.Module):
    """conv.weight, conv.bias, norm.weight, norm.bias and tied = conv.weight; frozen does not train."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.norm = nn.LayerNorm(2)
        self.tied = nn.Conv2d(1, 2, 1)
        self.tied.weight = self.conv.weight
        self.tied.bias.requires_grad = False


def groups_by_name(model, **kwargs):
    names = {param: name for name, param in model.named_parameters()}
    groups = get_default_optimizer_params(model, **kwargs)
    return [({k: v for k, v in g.items() if k != "params"}, [names[p] for p in g["params"]]) for g in groups]


CONV = ["conv.weight", "conv.bias"]
NORM = ["norm.weight", "norm.bias"]


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({}, [({}, CONV + NORM)]),
        ({"base_lr": 1.0, "weight_decay": 0.5}, [({"lr": 1.0, "weight_decay": 0.5}, CONV + NORM)]),
        ({"weight_decay_norm": 0.0}, [({}, CONV), ({"weight_decay": 0.0}, NORM)]),
        (
            {"base_lr": 1.0, "bias_lr_factor": 2.0},
            [({"lr": 1.0}, ["conv.weight", "norm.weight"]), ({"lr": 2.0}, ["conv.bias", "norm.bias"])],
        ),
        (
            {"weight_decay_norm": 0.0, "weight_decay_bias": 0.1},  # a norm's bias is a bias
            [({}, CONV[:1]), ({"weight_decay": 0.1}, [CONV[1], NORM[1]]), ({"weight_decay": 0.0}, NORM[:1])],
        ),
        (
            {"base_lr": 1.0, "lr_factor_func": lambda name: 0.1 if name.startswith("norm.") else 1.0},
            [({"lr": 1.0}, CONV), ({"lr": 0.1}, NORM)],
        ),
        (
            {"base_lr": 1.0, "overrides": {"weight": {"lr": 0.5}}},
            [({"lr": 0.5}, ["conv.weight", "norm.weight"]), ({"lr": 1.0}, ["conv.bias", "norm.bias"])],
        ),
    ],
    ids=["plain", "defaults", "norm", "bias-lr", "bias-decay", "factor", "override"],
)
def test_parameters_are_grouped_by_their_settings(kwargs, expected):
    assert groups_by_name(Model(), **kwargs) == expected


@pytest.mark.parametrize(
    "kwargs",
    [
        {"bias_lr_factor": 2.0},
        {"lr_factor_func": lambda name: 1.0},
        {"weight_decay_bias": 0.1, "overrides": {"bias": {"lr": 1.0}}},
    ],
    ids=["bias-without-base", "factor-without-base", "bias-twice"],
)
def test_contradictions_are_refused(kwargs):
    with pytest.raises(ValueError, match=r"base_lr|bias"):
        get_default_optimizer_params(Model(), **kwargs)


def test_optimizer_is_sgd_with_the_config_s_values():
    cfg = config(MOMENTUM=0.5, NESTEROV=True, WEIGHT_DECAY=0.25, WEIGHT_DECAY_NORM=0.125)
    optimizer = build_optimizer(cfg, Model())
    assert type(optimizer) is torch.optim.SGD
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.25, 0.125]
    for group in optimizer.param_groups:
        assert (group["lr"], group["momentum"], group["nesterov"], group["foreach"]) == (1.0, 0.5, True, True)


@pytest.mark.parametrize(
    ("clip_type", "expected"),
    [("value", [[1.0, 1.0], [0.5]]), ("norm", [[0.6, 0.8], [0.5]])],  # of the gradients (3, 4) and (0.5)
)
@pytest.mark.parametrize("of_class", [False, True], ids=["instance", "class"])
def test_each_parameter_s_gradient_is_clipped_before_the_step(clip_type, expected, of_class):
    cfg = config()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip_type
    params = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    if of_class:
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD)(params, lr=1.0)
    else:
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD(params, lr=1.0))
    assert isinstance(optimizer, torch.optim.SGD)
    assert type(optimizer).__name__ == "SGDWithGradientClip"

    params[0].grad, params[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([0.5])
    optimizer.step()
    for param, step in zip(params, expected, strict=True):
        torch.testing.assert_close(param.data, -torch.tensor(step))


def test_without_clipping_the_optimizer_is_left_alone():
    assert maybe_add_gradient_clipping(config(), torch.optim.AdamW) is torch.optim.AdamW
