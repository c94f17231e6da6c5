import argparse
import itertools
import json
import logging
import math
import os

import pytest
import torch
from torch import nn

import d2_detr  # noqa: F401  (selects the detectron2 to import)

import detectron2
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    HookBase,
    SimpleTrainer,
    TrainerBase,
    default_argument_parser,
    default_setup,
    hooks,
)
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, JSONWriter

embedded_only = pytest.mark.skipif(
    "embedded" not in detectron2.__version__, reason="only the embedded detectron2 promises it"
)


@META_ARCH_REGISTRY.register()
class EngineTestModel(nn.Module):
    """A model with one parameter that returns its inputs in eval mode."""

    def __init__(self, cfg=None):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, data):
        if not self.training:
            return data
        return {"loss_a": self.weight * data, "loss_b": 2 * self.weight**2}


def simple_trainer(data=1.0):
    model = EngineTestModel()
    return SimpleTrainer(model, itertools.repeat(data), torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.fixture(autouse=True)
def restored_loggers():
    """Restore the loggers that trainers configure."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore")]
    before = [(logger.level, logger.propagate, logger.handlers[:]) for logger in loggers]
    yield
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers


class Recorder(HookBase):
    def __init__(self, calls):
        for moment in ("before_train", "before_step", "after_backward", "after_step", "after_train"):
            setattr(self, moment, lambda m=moment: calls.append((m, self.trainer.iter, self.trainer.storage.iter)))


def test_hooks_are_called_around_training_and_each_iteration():
    calls = []
    trainer = simple_trainer()
    trainer.register_hooks([None, Recorder(calls)])
    trainer.train(5, 7)
    steps = [(moment, i, i) for i in (5, 6) for moment in ("before_step", "after_backward", "after_step")]
    assert calls == [("before_train", 5, 5), *steps, ("after_train", 7, 7)]


def test_after_a_failure_after_train_runs_without_evaluation():
    class Fails(TrainerBase):
        def run_step(self):
            if self.iter == 1:
                raise RuntimeError("broken")

    calls = []
    trainer = Fails()
    evaluation = hooks.EvalHook(0, lambda: calls.append("evaluated"))
    trainer.register_hooks([Recorder(calls), evaluation])
    with pytest.raises(RuntimeError, match="broken"):
        trainer.train(0, 5)
    assert calls[-1] == ("after_train", 1, 1)
    assert [moment for moment, *_ in calls].count("after_step") == 1


def test_the_state_contains_the_iteration_and_hook_states(caplog):
    class Counts(HookBase):
        count = 3

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state_dict):
            self.count = state_dict["count"]

    trainer, name = TrainerBase(), Counts.__qualname__
    assert trainer.state_dict() == {"iteration": 0}
    counts = Counts()
    trainer.register_hooks([Recorder([]), counts])
    assert trainer.state_dict() == {"iteration": 0, "hooks": {name: {"count": 3}}}
    trainer.load_state_dict({"iteration": 9, "hooks": {name: {"count": 8}, "Gone": {}}})
    assert (trainer.iter, counts.count) == (9, 8)
    assert "Gone" in caplog.text


def test_step_follows_the_gradient_of_the_summed_losses():
    trainer = simple_trainer()
    trainer.train(0, 2)
    # d/dw (w + 2 w^2) = 1 + 4 w: 1 -> 1 - 0.1 * 5 = 0.5 -> 0.5 - 0.1 * 3 = 0.2
    assert trainer.model.weight.item() == pytest.approx(0.2)


def test_total_loss_is_the_sum_and_each_loss_is_stored():
    trainer = simple_trainer()
    trainer.train(0, 1)
    latest = trainer.storage.latest()
    assert list(latest) == ["rank_data_time", "data_time", "total_loss", "loss_a", "loss_b"]
    assert [latest[name] for name in ("total_loss", "loss_a", "loss_b")] == [(3.0, 0), (1.0, 0), (2.0, 0)]


def test_losses_are_averaged_and_data_time_is_the_maximum(monkeypatch):
    def gather(metrics):
        return [{**metrics, "data_time": 2.0}, {**metrics, "data_time": 5.0, "loss_a": 3.0}]

    monkeypatch.setattr(comm, "gather", gather)
    trainer = simple_trainer()
    trainer.train(0, 1)
    latest = {name: value for name, (value, _) in trainer.storage.latest().items()}
    assert (latest["loss_a"], latest["loss_b"], latest["total_loss"], latest["data_time"]) == (2.0, 2.0, 4.0, 5.0)


def test_losses_are_stored_every_gather_metric_period():
    model = EngineTestModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = SimpleTrainer(model, itertools.repeat(1.0), optimizer, gather_metric_period=3)
    trainer.train(0, 7)
    for name in ("total_loss", "loss_a", "data_time"):
        assert [i for _, i in trainer.storage.history(name).values()] == [2, 5]


def test_the_data_loader_can_be_replaced():
    trainer = simple_trainer(data=1.0)
    trainer.train(0, 1)
    trainer.reset_data_loader(lambda: itertools.repeat(10.0))
    trainer.train(1, 2)
    assert trainer.storage.latest()["loss_a"] == (pytest.approx(5.0), 1)


def test_a_model_may_return_one_loss():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = SimpleTrainer(model, itertools.repeat(torch.ones(1)), optimizer)
    trainer.train(0, 1)
    assert list(trainer.storage.latest()) == ["rank_data_time", "data_time", "total_loss"]


def test_a_loss_that_is_not_finite_stops_training():
    with pytest.raises(FloatingPointError, match="iteration"):
        simple_trainer(data=math.nan).train(0, 1)


def test_a_model_in_eval_mode_is_refused():
    trainer = simple_trainer()
    trainer.model.eval()
    with pytest.raises(AssertionError, match="eval mode"):
        trainer.train(0, 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests the behavior without CUDA")
def test_amp_needs_cuda():
    model = EngineTestModel()
    trainer = AMPTrainer(model, itertools.repeat(1.0), torch.optim.SGD(model.parameters(), lr=0.1))
    assert set(trainer.state_dict()) == {"iteration", "optimizer", "grad_scaler"}
    with pytest.raises(AssertionError, match="CUDA"):
        trainer.train(0, 1)


def test_time_is_stored_after_the_warmup_and_summarized(caplog):
    caplog.set_level("INFO", logger="detectron2")
    trainer = simple_trainer()
    trainer.register_hooks([hooks.IterationTimer(warmup_iter=3)])
    trainer.train(10, 15)
    assert [i for _, i in trainer.storage.history("time").values()] == [12, 13, 14]
    assert "Overall training speed: 3 iterations in 0:00:00" in caplog.text
    assert "Total training time: 0:00:00 (0:00:00 on hooks)" in caplog.text


def test_the_timer_does_not_hide_an_earlier_failure():
    class Fails(HookBase):
        def before_train(self):
            raise RuntimeError("broken")

    trainer = simple_trainer()
    trainer.register_hooks([Fails(), hooks.IterationTimer()])
    with pytest.raises(RuntimeError, match="broken"):
        trainer.train(0, 1)


def test_writers_write_every_period_and_before_they_are_closed():
    class Writer(EventWriter):
        events = []  # noqa: RUF012

        def write(self):
            self.events.append(trainer.storage.iter)

        def close(self):
            self.events.append("close")

    trainer = simple_trainer()
    trainer.register_hooks([hooks.PeriodicWriter([Writer()], period=2)])
    trainer.train(0, 5)
    assert Writer.events == [1, 3, 4, 5, "close"]


@pytest.mark.parametrize(
    ("total", "period", "evaluated_at"), [(4, 2, [1, 4]), (5, 2, [1, 3, 5]), (2, 0, [2]), (0, 2, [1])]
)
def test_evaluation_runs_every_period_and_after_training(total, period, evaluated_at):
    trainer = simple_trainer()
    evaluate = hooks.EvalHook(period, lambda: {"bbox": {"AP": 30.0, "AP50": 50.0}})
    trainer.register_hooks([evaluate])
    trainer.train(0, total)
    assert [i for _, i in trainer.storage.history("bbox/AP").values()] == evaluated_at
    assert trainer.storage.latest()["bbox/AP50"][0] == 50.0


@pytest.mark.parametrize(
    ("mode", "metrics", "saved_at", "best"),
    [
        ("max", [3.0, 4.0, 3.5, 5.0], [0, 1, 4], 5.0),
        ("min", [3.0, 4.0, 2.0, 2.0], [0, 2], 2.0),
        ("max", [math.nan, 1.0, math.nan, 0.5], [1], 1.0),
    ],
)
def test_best_checkpoint_is_saved_when_the_metric_improves(tmp_path, mode, metrics, saved_at, best):
    saved, values = [], iter(metrics)
    trainer = simple_trainer()
    checkpointer = DetectionCheckpointer(trainer.model, str(tmp_path))
    checkpointer.save = lambda name, **kwargs: saved.append((name, kwargs))
    best_checkpointer = hooks.BestCheckpointer(1, checkpointer, "AP", mode=mode)
    trainer.register_hooks([hooks.EvalHook(1, lambda: {"AP": next(values)}), best_checkpointer])
    trainer.train(0, len(metrics))
    assert saved == [("model_best", {"iteration": i}) for i in saved_at]
    assert best_checkpointer.best_metric == best


def test_best_checkpoint_warns_about_a_missing_metric(tmp_path, caplog):
    trainer = simple_trainer()
    trainer.register_hooks([hooks.BestCheckpointer(0, DetectionCheckpointer(trainer.model, str(tmp_path)), "AP")])
    trainer.train(0, 1)
    assert "AP" in caplog.text
    assert os.listdir(tmp_path) == []


def test_lr_is_stored_before_the_schedule_steps():
    trainer = simple_trainer()
    trainer.scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, step_size=1, gamma=0.5)
    trainer.register_hooks([hooks.LRScheduler()])
    trainer.train(0, 3)
    assert [lr for lr, _ in trainer.storage.history("lr").values()] == pytest.approx([0.1, 0.05, 0.025])


def test_lr_hook_accepts_an_optimizer_and_a_scheduler():
    trainer = simple_trainer()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=8.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    optimizer.step()  # torch warns if the schedule steps first
    hook = hooks.LRScheduler(optimizer, scheduler)
    trainer.register_hooks([hook])
    trainer.train(0, 3)
    assert [lr for lr, _ in trainer.storage.history("lr").values()] == [8, 4, 2]
    assert hook.scheduler is scheduler and trainer.state_dict()["hooks"]["LRScheduler"]["last_epoch"] == 3


@pytest.mark.parametrize(
    ("sizes", "rates", "expected"),
    [([1, 3, 3], [1, 2, 3], 1), ([1, 1, 1], [1, 2, 2], 1), ([2], [1], 0)],
    ids=["largest", "most-common", "only"],
)
def test_lr_is_that_of_the_largest_group_or_the_most_common(sizes, rates, expected):
    groups = [
        {"params": [nn.Parameter(torch.zeros(1)) for _ in range(size)], "lr": lr}
        for size, lr in zip(sizes, rates, strict=True)
    ]
    assert hooks.LRScheduler.get_best_param_group_id(torch.optim.SGD(groups)) == expected


class Trainer(DefaultTrainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return itertools.repeat(1.0)

    @classmethod
    def build_optimizer(cls, cfg, model):
        return torch.optim.SGD(model.parameters(), lr=cfg.SOLVER.BASE_LR, momentum=0.9)

    def build_writers(self):
        return [JSONWriter(os.path.join(self.cfg.OUTPUT_DIR, "metrics.json"))]

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        return {"toy": {"weight": model.weight.item()}}


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "EngineTestModel"
    cfg.MODEL.DEVICE = "cpu"
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.WARMUP_ITERS = 10
    cfg.SOLVER.STEPS = (30,)
    cfg.SOLVER.MAX_ITER = 45
    cfg.SOLVER.CHECKPOINT_PERIOD = 20
    cfg.TEST.EVAL_PERIOD = 20
    return cfg


def test_default_hooks_have_a_fixed_order(cfg):
    names = [type(hook).__name__ for hook in Trainer(cfg).build_hooks() if hook is not None]
    assert names == ["IterationTimer", "LRScheduler", "PeriodicCheckpointer", "EvalHook", "PeriodicWriter"]


def test_default_training_writes_metrics_and_checkpoints(cfg, tmp_path):
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()

    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [19, 39, 44, 45]
    losses = {"total_loss", "loss_a", "loss_b"}
    times = {"time", "data_time", "rank_data_time"}
    assert set(lines[0]) == {"iteration", "lr", "toy/weight"} | losses | times
    assert set(lines[2]) == {"iteration", "lr"} | losses | times
    assert set(lines[3]) == {"iteration", "toy/weight"}
    assert [line["lr"] for line in lines[:3]] == pytest.approx([0.01, 0.001, 0.001])

    files = {"model_0000019.pth", "model_0000039.pth", "model_final.pth", "last_checkpoint", "metrics.json"}
    assert set(os.listdir(tmp_path)) == files
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_checkpoint_contains_the_state_of_the_trainer(cfg, tmp_path):
    cfg.SOLVER.MAX_ITER = 20
    cfg.SOLVER.STEPS = ()
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    content = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert list(content) == ["model", "trainer", "iteration"]
    assert list(content["model"]) == ["weight"]
    assert content["iteration"] == 19
    state = content["trainer"]
    assert state["iteration"] == 19
    assert state["hooks"] == {"LRScheduler": {"base_lrs": [0.01], "last_epoch": 20}}
    assert list(state["_trainer"]) == ["iteration", "optimizer"]
    assert state["_trainer"]["iteration"] == 19
    (group,) = state["_trainer"]["optimizer"]["param_groups"]
    assert group["lr"] == group["initial_lr"] == 0.01
    assert set(state["_trainer"]["optimizer"]["state"][0]) == {"momentum_buffer"}


def test_a_resumed_training_ends_like_an_uninterrupted_one(cfg, tmp_path):
    uninterrupted = Trainer(cfg)
    uninterrupted.resume_or_load(resume=False)
    uninterrupted.train()

    (tmp_path / "last_checkpoint").write_text("model_0000019.pth")
    resumed = Trainer(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 20
    assert resumed.scheduler.last_epoch == 20
    resumed.train()
    assert resumed.model.weight.item() == uninterrupted.model.weight.item()
    assert resumed.optimizer.state_dict() == uninterrupted.optimizer.state_dict()


def test_without_resume_only_the_weights_are_loaded(cfg, tmp_path):
    torch.save({"model": {"weight": torch.tensor(7.0)}, "iteration": 99}, tmp_path / "weights.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    assert (trainer.model.weight.item(), trainer.start_iter) == (7.0, 0)


def test_trainer_has_the_attributes_of_its_inner_trainer(cfg):
    trainer = Trainer(cfg)
    for name in ("model", "data_loader", "optimizer"):
        assert getattr(trainer, name) is getattr(trainer._trainer, name)
    trainer.model = EngineTestModel()
    assert trainer.model is trainer._trainer.model


def test_expected_results_are_verified(cfg):
    cfg.SOLVER.MAX_ITER = 1
    cfg.TEST.EXPECTED_RESULTS = [["toy", "weight", 1.0, 0.2]]
    assert set(Trainer(cfg).train()) == {"toy"}
    cfg.TEST.EXPECTED_RESULTS = [["toy", "weight", 2.0, 0.2]]
    with pytest.raises(SystemExit):
        Trainer(cfg).train()


@embedded_only
def test_unsupported_training_is_refused_with_a_hint(cfg, monkeypatch):
    with pytest.raises(NotImplementedError, match=r"build_optimizer.*install the real Detectron2"):
        DefaultTrainer(cfg)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    with pytest.raises(NotImplementedError, match="several processes; install the real Detectron2"):
        Trainer(cfg)
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 8
    with pytest.raises(NotImplementedError, match="REFERENCE_WORLD_SIZE processes; install the real Detectron2"):
        Trainer.auto_scale_workers(cfg, 16)


def test_a_config_that_matches_the_world_size_is_unchanged(cfg):
    assert DefaultTrainer.auto_scale_workers(cfg, 16) is cfg
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 16
    assert DefaultTrainer.auto_scale_workers(cfg, 16) is cfg


class Count(DatasetEvaluator):
    def reset(self):
        self.count = 0

    def process(self, inputs, outputs):
        self.count += len(outputs)

    def evaluate(self):
        return {"toy": {"count": float(self.count)}}


class Evaluating(DefaultTrainer):
    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return [[1, 2]] * int(dataset_name)


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("3",), {"toy": {"count": 6.0}}), (("3", "4"), {"3": {"toy": {"count": 6.0}}, "4": {"toy": {"count": 8.0}}})],
    ids=["one", "two"],
)
def test_results_are_keyed_by_dataset_if_there_are_several(cfg, names, expected):
    class Counting(Evaluating):
        @classmethod
        def build_evaluator(cls, cfg, dataset_name):
            return Count()

    cfg.DATASETS.TEST = names
    assert Counting.test(cfg, EngineTestModel()) == expected


def test_without_an_evaluator_there_are_no_results(cfg, caplog):
    cfg.DATASETS.TEST = ("3",)
    assert Evaluating.test(cfg, EngineTestModel()) == {}
    assert "build_evaluator" in caplog.text


def test_command_line_has_the_options_of_detectron2():
    parser = default_argument_parser()
    args = vars(parser.parse_args([]))
    assert args.pop("dist_url").startswith("tcp://127.0.0.1:")
    assert args == {
        "config_file": "",
        "resume": False,
        "eval_only": False,
        "num_gpus": 1,
        "num_machines": 1,
        "machine_rank": 0,
        "opts": [],
    }
    assert parser.parse_args(["--resume", "SOLVER.BASE_LR", "0.1"]).opts == ["SOLVER.BASE_LR", "0.1"]


def test_setup_saves_the_config_and_sets_the_seed(cfg, tmp_path):
    cfg.SEED = 7
    cfg.CUDNN_BENCHMARK = True
    benchmark = torch.backends.cudnn.benchmark
    try:
        default_setup(cfg, argparse.Namespace(config_file="", eval_only=False))
        assert torch.backends.cudnn.benchmark is True
        default_setup(cfg, {})
    finally:
        torch.backends.cudnn.benchmark = benchmark
    assert torch.initial_seed() == 7
    loaded = get_cfg()
    loaded.merge_from_file(str(tmp_path / "config.yaml"))
    assert loaded.SOLVER == cfg.SOLVER
    assert loaded.MODEL.META_ARCHITECTURE == "EngineTestModel"
    log = (tmp_path / "log.txt").read_text()
    assert "Rank of current process: 0. World size: 1" in log
    assert "EngineTestModel" in log


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests the behavior without CUDA")
def test_setup_does_not_change_the_precision_without_cuda(cfg):
    precision = torch.get_float32_matmul_precision()
    try:
        cfg.FLOAT32_PRECISION = "medium"
        default_setup(cfg, {})
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(precision)
