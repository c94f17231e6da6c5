"""The best checkpoint, early stopping, the exponential moving average (EMA) of the weights."""

import json
import math

import pytest
import torch

from d2_detr.config import load_config
from d2_detr.engine.hooks.ema import Ema
from d2_detr.engine.trainer import Trainer
from d2_detr.utils.errors import InputError

CONFIG = "detr_compact_balloon_drawn.yaml"


@pytest.fixture
def opts(drawn_balloons, tiny_opts):
    """Options of six iterations with an evaluation after every second one."""
    return [*tiny_opts, "TEST.EVAL_PERIOD", "2", "SOLVER.STEPS", "()", "SOLVER.CHECKPOINT_PERIOD", "3"]


def build_trainer(opts, values):
    """Build a trainer whose evaluations return these values of AP."""
    trainer = Trainer(load_config(CONFIG, opts))
    values = iter(values)
    trainer._measure = lambda: {"bbox": {"AP": next(values)}}
    return trainer


def saved(folder, name):
    return torch.load(folder / f"{name}.pth", weights_only=True)


def test_best_model_is_kept_and_last_checkpoint_is_final(opts, tmp_path):
    build_trainer(opts, [10.0, 30.0, 20.0]).train()
    assert saved(tmp_path, "model_best")["iteration"] == 3
    assert saved(tmp_path, "model_final")["iteration"] == 5
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert "trainer" in saved(tmp_path, "model_final") and "trainer" not in saved(tmp_path, "model_best")


def test_a_training_returns_the_evaluation_of_its_best_model(opts):
    assert build_trainer(opts, [10.0, 30.0, 20.0]).train() == {"bbox": {"AP": 30.0}}


def test_box_ap_breaks_ties_of_mask_ap(opts, tmp_path):
    trainer, values = build_trainer(opts, []), iter([10.0, 30.0, 20.0])
    trainer.best._metrics = ["segm/AP", "bbox/AP"]
    trainer._measure = lambda: {"bbox": {"AP": next(values)}, "segm": {"AP": 0.0}}
    trainer.train()
    assert saved(tmp_path, "model_best")["iteration"] == 3


def test_state_is_saved_before_every_evaluation(opts, tmp_path):
    opts = [*opts, "SOLVER.CHECKPOINT_PERIOD", "100", "SOLVER.MAX_ITER", "8"]
    trainer = build_trainer(opts, [10.0, 20.0])  # the third evaluation interrupts it
    with pytest.raises(StopIteration):
        trainer.train()
    assert {path.name for path in tmp_path.glob("*.pth")} == {"model_best.pth", "model_last.pth", "model_last_2.pth"}
    assert (tmp_path / "last_checkpoint").read_text() == "model_last.pth"
    resumed = build_trainer(opts, [15.0, 12.0])
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 6
    resumed.train()
    assert {path.name for path in tmp_path.glob("*.pth")} == {"model_best.pth", "model_final.pth"}
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert saved(tmp_path, "model_best")["iteration"] == 3, "the best one before the resume"
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["bbox/AP"] for line in lines if "bbox/AP" in line] == [10.0, 20.0, 15.0, 12.0]


def test_a_complete_training_is_only_evaluated_again(opts, tmp_path):
    build_trainer(opts, [10.0, 20.0, 30.0]).train()
    before, lines = saved(tmp_path, "model_final"), (tmp_path / "metrics.json").read_text()
    again = build_trainer(opts, [30.0])
    again.resume_or_load(resume=True)
    again.train()
    assert same(saved(tmp_path, "model_final")["model"], before["model"])
    assert (tmp_path / "metrics.json").read_text() == lines


@pytest.mark.parametrize("kept", [1, 3])
def test_last_checkpoints_are_kept_by_number(opts, tmp_path, kept):
    trainer = build_trainer(
        [*opts, "SOLVER.CHECKPOINTS_KEPT", str(kept), "SOLVER.CHECKPOINT_PERIOD", "100"], [10.0, 20.0]
    )
    with pytest.raises(StopIteration):
        trainer.train()
    names = ["model_last", "model_last_2", "model_last_3"][:kept]
    assert [saved(tmp_path, name)["iteration"] for name in names] == [5, 3, 1][:kept]
    assert len(list(tmp_path.glob("model_last*"))) == kept


def test_minutes_bound_what_a_crash_can_cost(opts, tmp_path):
    opts = [*opts, "SOLVER.CHECKPOINT_PERIOD", "100", "TEST.EVAL_PERIOD", "0", "SOLVER.CHECKPOINT_MINUTES", "1e-6"]
    trainer = build_trainer(opts, [])
    saves = []
    trainer.checkpointer.save = lambda name, iteration: saves.append((name, iteration))
    with pytest.raises(StopIteration):
        trainer.train()
    assert saves == [("model_last", iteration) for iteration in range(6)]


def test_every_test_set_has_a_line_in_the_log(opts, tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr("d2_detr.engine.trainer.logger.info", lambda text, *args: logged.append(text % args))
    trainer = build_trainer([*opts, "DATASETS.TEST", "('balloon_drawn_val', 'balloon_drawn_train')"], [])
    metrics = {
        "balloon_drawn_val": {"bbox": {"AP": math.nan}},
        "balloon_drawn_train": {"bbox": {"AP": 1.0, "AP50": 2.0}},
    }
    trainer._measure = lambda: metrics
    trainer.train()
    assert "balloon_drawn_val at iteration 2, epoch 1: AP nan" in logged
    assert "balloon_drawn_train at iteration 4, epoch 2: AP 1.00  AP50 2.00" in logged


def test_the_last_evaluation_can_be_the_best_and_nan_cannot(opts, tmp_path):
    build_trainer(opts, [math.nan, 10.0, 20.0]).train()
    assert saved(tmp_path, "model_best")["iteration"] == 5


def test_patience_stops_the_training_with_all_files(opts, tmp_path):
    trainer = build_trainer([*opts, "SOLVER.PATIENCE", "1", "SOLVER.MAX_ITER", "20"], [30.0, 40.0, 35.0, 50.0])
    trainer.train()
    assert trainer.iter == 6, "after the third evaluation"
    assert saved(tmp_path, "model_final")["iteration"] == 5 and saved(tmp_path, "model_best")["iteration"] == 3
    assert not (tmp_path / "model_last.pth").exists()
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_a_resumed_run_remembers_the_best_model(opts, tmp_path):
    build_trainer([*opts, "SOLVER.MAX_ITER", "4"], [30.0, 20.0]).train()
    resumed = build_trainer(opts, [25.0])
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 4
    resumed.train()
    assert saved(tmp_path, "model_best")["iteration"] == 1


# ---- the moving average


def test_ema_follows_the_weights_with_a_growing_decay():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    ema, expected = Ema(model, 0.3), 0.0
    for step in range(5):
        model.weight.data.fill_(step + 1.0)
        ema.after_step()
        decay = min(0.3, (1 + step) / (10 + step))
        expected = step + 1.0 if step == 0 else decay * expected + (1 - decay) * (step + 1.0)
        assert ema.weights()["weight"].item() == pytest.approx(expected)
    with ema.applied():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 5.0


def test_ema_step_does_not_wait_for_the_device():
    """Reading a value would wait for the GPU; tensors on the meta device have no values to read."""
    ema = Ema(torch.nn.BatchNorm1d(2, device="meta"), 0.9)
    for _ in range(2):
        ema.after_step()


def test_ema_is_saved_evaluated_and_resumed(opts, tmp_path):
    opts = [*opts, "SOLVER.EMA_DECAY", "0.5"]
    first = build_trainer([*opts, "SOLVER.MAX_ITER", "3"], [1.0, 2.0])
    evaluated = []
    first._measure = lambda: evaluated.append(copied_state(first.model)) or {"bbox": {"AP": 1.0}}
    first.train()
    content = saved(tmp_path, "model_final")
    trained = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    assert same(content["model"], first.ema.weights()) and not same(content["model"], trained)
    assert same(evaluated[-1], content["model"])

    resumed = build_trainer(opts, [1.0, 2.0, 3.0])
    resumed.resume_or_load(resume=True)
    assert same(resumed.model.state_dict(), trained) and same(resumed.ema.weights(), content["model"])
    resumed.train()
    assert not same(resumed.ema.weights(), content["model"])


def copied_state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_decay_outside_0_to_1_is_an_error(opts):
    with pytest.raises(InputError, match="EMA_DECAY 1.5"):
        build_trainer([*opts, "SOLVER.EMA_DECAY", "1.5"], [])


# ---- validation losses


def test_evaluation_logs_validation_losses(opts, tmp_path):
    Trainer(load_config(CONFIG, [*opts, "SOLVER.MAX_ITER", "2"])).train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    [metrics] = [line for line in lines if "validation/total_loss" in line]
    for name in ("loss_ce", "loss_bbox", "loss_giou", "class_error", "cardinality_error"):
        assert metrics[f"validation/{name}"] >= 0
    assert "bbox/AP" in metrics


def test_every_evaluation_is_in_metrics_json(opts, tmp_path):
    build_trainer([*opts, "SOLVER.MAX_ITER", "7"], [10.0, 20.0, 30.0, 40.0]).train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [(line["iteration"], line["bbox/AP"]) for line in lines if "bbox/AP" in line] == [
        (1, 10.0), (3, 20.0), (5, 30.0), (7, 40.0),
    ]  # fmt: skip
