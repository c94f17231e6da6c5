"""The best checkpoint, early stopping, the moving average of the weights."""

import json
import math

import pytest
import torch

from d2_detr.engine.hooks.checkpoints import best_metric
from d2_detr.engine.hooks.ema import Ema
from d2_detr.engine.trainer import Trainer
from d2_detr.utils.errors import InputError
from d2_detr.workflows.setup import load_config

CONFIG = "detr_compact_balloon_drawn.yaml"


@pytest.fixture
def opts(drawn_balloons, tiny_opts):
    """Six iterations, an evaluation after every other."""
    return [*tiny_opts, "TEST.EVAL_PERIOD", "2", "SOLVER.STEPS", "()", "SOLVER.CHECKPOINT_PERIOD", "3"]


def trainer_of(opts, values):
    """A trainer whose evaluations find these AP."""
    trainer = Trainer(load_config(CONFIG, opts))
    values = iter(values)
    trainer.test = lambda cfg, model: {"bbox": {"AP": next(values)}}
    return trainer


def saved(folder, name):
    return torch.load(folder / f"{name}.pth", weights_only=True)


def test_the_model_with_the_highest_ap_is_kept_and_the_run_would_go_on_from_the_last(opts, tmp_path):
    trainer_of(opts, [10.0, 30.0, 20.0]).train()
    assert saved(tmp_path, "model_best")["iteration"] == 3
    assert saved(tmp_path, "model_final")["iteration"] == 5
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert "trainer" in saved(tmp_path, "model_final") and "trainer" not in saved(tmp_path, "model_best")


def test_every_evaluation_leaves_a_checkpoint_to_go_on_from_in_place_of_the_one_before(opts, tmp_path):
    opts = [*opts, "SOLVER.CHECKPOINT_PERIOD", "100", "SOLVER.MAX_ITER", "8"]
    trainer = trainer_of(opts, [10.0, 20.0])  # and is interrupted by the third
    with pytest.raises(StopIteration):
        trainer.train()
    assert {path.name for path in tmp_path.glob("*.pth")} == {"model_best.pth", "model_last.pth"}
    assert (tmp_path / "last_checkpoint").read_text() == "model_last.pth"
    resumed = trainer_of(opts, [15.0, 12.0])
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 4
    resumed.train()
    assert {path.name for path in tmp_path.glob("*.pth")} == {"model_best.pth", "model_final.pth"}
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert saved(tmp_path, "model_best")["iteration"] == 3, "also what was best before"


def test_the_only_checkpoint_stays_where_a_resume_finds_nothing_left_to_do(opts, tmp_path):
    opts = [*opts, "SOLVER.CHECKPOINT_PERIOD", "100"]
    trainer = trainer_of([*opts, "SOLVER.MAX_ITER", "8"], [10.0, 20.0])
    with pytest.raises(StopIteration):
        trainer.train()
    shorter = trainer_of([*opts, "SOLVER.MAX_ITER", "4"], [20.0])
    shorter.resume_or_load(resume=True)
    shorter.train()
    assert saved(tmp_path, "model_last")["iteration"] == 3


def test_each_of_several_test_sets_has_its_line(opts, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("d2_detr.engine.trainer.logger.info", lambda text, *args: said.append(text % args))
    trainer = trainer_of([*opts, "DATASETS.TEST", "('balloon_drawn_val', 'balloon_drawn_train')"], [])
    found = {"balloon_drawn_val": {"bbox": {"AP": math.nan}}, "balloon_drawn_train": {"bbox": {"AP": 1.0, "AP50": 2.0}}}
    trainer.test = lambda cfg, model: found
    trainer.train()
    assert "balloon_drawn_val at iteration 2, epoch 1: AP nan" in said
    assert "balloon_drawn_train at iteration 4, epoch 2: AP 1.00  AP50 2.00" in said


def test_the_last_evaluation_may_be_the_best_and_an_undefined_ap_never_is(opts, tmp_path):
    trainer_of(opts, [math.nan, 10.0, 20.0]).train()
    assert saved(tmp_path, "model_best")["iteration"] == 5


def test_without_a_rise_for_so_many_evaluations_the_training_ends_whole(opts, tmp_path):
    trainer = trainer_of([*opts, "SOLVER.PATIENCE", "1", "SOLVER.MAX_ITER", "20"], [30.0, 40.0, 35.0, 50.0])
    trainer.train()
    assert trainer.iter == 6, "behind the third evaluation"
    assert saved(tmp_path, "model_final")["iteration"] == 5 and saved(tmp_path, "model_best")["iteration"] == 3
    assert not (tmp_path / "model_last.pth").exists()
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_a_resumed_run_remembers_the_best(opts, tmp_path):
    trainer_of([*opts, "SOLVER.MAX_ITER", "4"], [30.0, 20.0]).train()
    resumed = trainer_of(opts, [25.0])
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 4
    resumed.train()
    assert saved(tmp_path, "model_best")["iteration"] == 1


@pytest.mark.parametrize(
    ("opts", "metric"),
    [
        ([], "bbox/AP"),
        (["MODEL.MASK_ON", "True"], "segm/AP"),
        (["MODEL.MASK_ON", "True", "MODEL.DETR.PANOPTIC_ON", "True"], "panoptic_seg/PQ"),
        (["DATASETS.TEST", "('balloon_val', 'coco_2017_val')"], "balloon_val/bbox/AP"),
    ],
    ids=["boxes", "masks", "panoptic", "two_datasets"],
)
def test_models_are_compared_by_what_they_are_for(opts, metric):
    assert best_metric(load_config(CONFIG, opts)) == metric


# ---- the moving average


def test_the_average_follows_the_weights_with_a_decay_that_grows():
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


def test_the_average_is_what_is_saved_and_evaluated_and_a_resume_goes_on_with_both(opts, tmp_path):
    opts = [*opts, "SOLVER.EMA_DECAY", "0.5"]
    first = trainer_of([*opts, "SOLVER.MAX_ITER", "3"], [1.0, 2.0])
    evaluated = []
    first.test = lambda cfg, model: evaluated.append(copied(model)) or {"bbox": {"AP": 1.0}}
    first.train()
    content = saved(tmp_path, "model_final")
    trained = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    assert same(content["model"], first.ema.weights()) and not same(content["model"], trained)
    assert same(evaluated[-1], content["model"])

    resumed = trainer_of(opts, [1.0, 2.0, 3.0])
    resumed.resume_or_load(resume=True)
    assert same(resumed.model.state_dict(), trained) and same(resumed.ema.weights(), content["model"])
    resumed.train()
    assert not same(resumed.ema.weights(), content["model"])


def copied(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_decay_that_is_none_is_refused(opts):
    with pytest.raises(InputError, match="EMA_DECAY 1.5"):
        trainer_of([*opts, "SOLVER.EMA_DECAY", "1.5"], [])


# ---- validation losses


def test_an_evaluation_measures_the_losses_of_training_too(opts, tmp_path):
    Trainer(load_config(CONFIG, [*opts, "SOLVER.MAX_ITER", "2"])).train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    [found] = [line for line in lines if "validation/total_loss" in line]
    for name in ("loss_ce", "loss_bbox", "loss_giou", "class_error", "cardinality_error"):
        assert found[f"validation/{name}"] >= 0
    assert "bbox/AP" in found


def test_every_evaluation_is_in_the_metrics_between_two_lines_of_the_losses_too(opts, tmp_path):
    trainer_of([*opts, "SOLVER.MAX_ITER", "7"], [10.0, 20.0, 30.0, 40.0]).train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [(line["iteration"], line["bbox/AP"]) for line in lines if "bbox/AP" in line] == [
        (1, 10.0), (3, 20.0), (5, 30.0), (7, 40.0),
    ]  # fmt: skip
