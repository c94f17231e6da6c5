import math

import pytest
import torch
from torch import nn

import d2_detr  # noqa: F401  (selects the detectron2 to import)

from detectron2.config import get_cfg
from detectron2.solver import LRMultiplier, build_lr_scheduler
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
    """Return the rates of all groups in each of the 10 iterations."""
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = [[group["lr"] for group in optimizer.param_groups]]
    for _ in range(9):
        optimizer.step()
        scheduler.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    return rates


STEPS = {"LR_SCHEDULER_NAME": "WarmupMultiStepLR", "STEPS": (6, 8), "GAMMA": 0.1}
COSINE = {"LR_SCHEDULER_NAME": "WarmupCosineLR"}


@pytest.mark.parametrize(
    ("solver", "expected"),
    [
        (STEPS, [*ramp(0.2, 1), 1, 1, 0.1, 0.1, 0.01, 0.01]),
        ({**STEPS, "WARMUP_METHOD": "constant"}, [0.2] * 4 + [1, 1, 0.1, 0.1, 0.01, 0.01]),
        ({**STEPS, "WARMUP_ITERS": 0}, [1] * 6 + [0.1, 0.1, 0.01, 0.01]),
        ({**STEPS, "WARMUP_ITERS": 1000}, ramp(0.2, 0.01, steps=10)),
        (COSINE, [*ramp(0.2, cosine(4)), *(cosine(i) for i in range(4, 10))]),
        ({**COSINE, "BASE_LR_END": 0.5}, [*ramp(0.2, cosine(4, 0.5)), *(cosine(i, 0.5) for i in range(4, 10))]),
    ],
    ids=["steps", "constant-warmup", "no-warmup", "only-warmup", "cosine", "cosine-end"],
)
def test_learning_rate_follows_the_schedule(solver, expected):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    assert [rate for (rate,) in learning_rates(config(**solver), optimizer)] == pytest.approx(expected)


def test_the_lr_ratio_of_parameter_groups_is_constant():
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


@pytest.mark.parametrize("end", [-0.1, 1.1])
def test_a_final_cosine_lr_out_of_range_is_refused(end):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(AssertionError, match=str(end)):
        build_lr_scheduler(config(**COSINE, BASE_LR_END=end), optimizer)


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


@pytest.mark.parametrize(
    ("clip_type", "expected"),
    [("value", [[1.0, 1.0], [0.5]]), ("norm", [[0.6, 0.8], [0.5]])],  # of the gradients (3, 4) and (0.5)
)
def test_gradients_are_clipped_per_parameter_before_the_step(clip_type, expected):
    cfg = config()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip_type
    params = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD(params, lr=1.0))
    params[0].grad, params[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([0.5])
    optimizer.step()
    for param, step in zip(params, expected, strict=True):
        torch.testing.assert_close(param.data, -torch.tensor(step))


def test_without_clipping_gradients_are_unchanged():
    param = nn.Parameter(torch.zeros(1))
    optimizer = maybe_add_gradient_clipping(config(), torch.optim.SGD([param], lr=1.0))
    param.grad = torch.tensor([30.0])
    optimizer.step()
    assert param.item() == -30


def test_an_optimizer_class_is_replaced_by_one_that_clips():
    cfg = config()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    assert maybe_add_gradient_clipping(config(), torch.optim.SGD) is torch.optim.SGD
    clipping = maybe_add_gradient_clipping(cfg, torch.optim.SGD)
    assert issubclass(clipping, torch.optim.SGD) and clipping.__name__ == "SGDWithGradientClip"
    param = nn.Parameter(torch.zeros(1))
    optimizer = clipping([param], lr=0.5)
    param.grad = torch.tensor([30.0])
    optimizer.step()
    assert param.item() == -0.5
