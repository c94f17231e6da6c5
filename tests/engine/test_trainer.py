"""Training: output files, resuming, errors."""

import json
import re
import shutil

import pytest
import torch

from d2_detr.config import load_config
from d2_detr.engine.trainer import Trainer
from d2_detr.utils.errors import InputError
from d2_detr.workflows.prepare_run import prepare_run

CONFIG = "detr_compact_balloon_drawn.yaml"


def build_trainer(opts):
    return Trainer(load_config(CONFIG, opts))


@pytest.fixture
def complete_run(drawn_balloons, tiny_opts, tmp_path):
    build_trainer(tiny_opts).train()
    return tmp_path


def read_metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_a_run_writes_checkpoints_metrics_and_results(complete_run):
    assert {path.name for path in complete_run.iterdir() if path.suffix == ".pth"} == {
        "model_0000002.pth",
        "model_0000005.pth",
        "model_best.pth",
        "model_final.pth",
    }
    assert (complete_run / "last_checkpoint").read_text() == "model_final.pth"
    assert (complete_run / "inference" / "coco_instances_results.json").is_file()
    assert list(complete_run.glob("events.out.tfevents.*"))
    logged = {name for line in read_metrics(complete_run) for name in line}
    assert {"total_loss", "loss_ce", "loss_bbox_0", "class_error", "cardinality_error", "lr", "bbox/AP50"} <= logged


def test_total_loss_is_the_sum_of_the_losses(drawn_balloons, tiny_opts, tmp_path):
    build_trainer([*tiny_opts, "SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "()"]).train()
    [last] = [line for line in read_metrics(tmp_path) if "total_loss" in line]
    assert last["total_loss"] == pytest.approx(sum(v for k, v in last.items() if k.startswith("loss_")), rel=1e-5)


def test_a_resumed_run_continues_iteration_optimizer_and_rate(complete_run, tiny_opts):
    """As if interrupted after iteration 3 of 6."""
    shutil.copy(complete_run / "model_0000002.pth", complete_run / "interrupted.pth")
    (complete_run / "last_checkpoint").write_text("interrupted.pth")
    resumed = build_trainer(tiny_opts)
    resumed.resume_or_load(resume=True)
    saved = torch.load(complete_run / "interrupted.pth", weights_only=True)
    assert resumed.start_iter == 3
    optimizer = resumed._trainer.optimizer.state_dict()
    for index, state in saved["trainer"]["_trainer"]["optimizer"]["state"].items():
        for name, value in state.items():
            torch.testing.assert_close(optimizer["state"][index][name], value, rtol=0, atol=0)
    resumed.train()
    assert resumed.iter == 6
    assert [group["lr"] for group in resumed._trainer.optimizer.param_groups] == pytest.approx([4e-5, 4e-5])


def test_a_resumed_run_has_the_seed_of_its_start(complete_run, tiny_opts):
    def seed(*opts, resume):
        cfg, datasets = prepare_run(load_config(CONFIG, [*tiny_opts, "SOLVER.MAX_ITER", "9", *opts]), resume=resume)
        trainer = Trainer(cfg, datasets)
        trainer.resume_or_load(resume=resume)
        return cfg.SEED, trainer.seed

    assert seed(resume=True) == (3, 3)
    (complete_run / "config.yaml").unlink()
    drawn = seed("SEED", "-1", resume=False)
    assert drawn[0] == drawn[1] >= 0
    assert seed("SEED", "-1", resume=True) == (drawn[0], 3), "the checkpoint is still that of the first training"


def test_without_resume_only_the_weights_are_loaded(complete_run, tiny_opts):
    again = build_trainer([*tiny_opts, "MODEL.WEIGHTS", str(complete_run / "model_final.pth")])
    again.resume_or_load(resume=False)
    assert again.start_iter == 0 and not again._trainer.optimizer.state_dict()["state"]
    trained = torch.load(complete_run / "model_final.pth", weights_only=True)["model"]
    for name, value in again.checkpointer.model.state_dict().items():
        torch.testing.assert_close(value, trained[name], rtol=0, atol=0)


def test_non_finite_loss_stops_the_run_with_its_name(drawn_balloons, tiny_opts):
    trainer = build_trainer(tiny_opts)
    box_head = trainer._trainer.model.detr.bbox_embed
    torch.nn.init.constant_(box_head.layers[-1].bias, float("nan"))
    before = {name: p.detach().clone() for name, p in trainer._trainer.model.named_parameters()}
    with pytest.raises(InputError, match=r"iteration 0: loss_bbox_0 is nan, loss_giou_0 is nan") as error:
        trainer.train()
    assert "loss_ce" not in str(error.value) and "BASE_LR" in str(error.value)
    for name, parameter in trainer._trainer.model.named_parameters():
        torch.testing.assert_close(parameter, before[name], rtol=0, atol=0, equal_nan=True)


def test_too_little_gpu_memory_is_an_error_with_remedies(drawn_balloons, tiny_opts, monkeypatch):
    def full(*args):
        raise torch.cuda.OutOfMemoryError("Tried to allocate 2 GiB")

    trainer = build_trainer(tiny_opts)
    monkeypatch.setattr(trainer._trainer.model, "forward", full)
    with pytest.raises(InputError, match="GPU does not have enough memory for 4 images.*image-size"):
        trainer.train()


def test_reason_for_a_failure_is_in_the_log(drawn_balloons, tiny_opts, tmp_path):
    trainer = Trainer(*prepare_run(load_config(CONFIG, tiny_opts)))
    torch.nn.init.constant_(trainer._trainer.model.detr.bbox_embed.layers[-1].bias, float("nan"))
    with pytest.raises(InputError):
        trainer.train()
    assert "Training failed: iteration 0: loss_bbox_0 is nan" in (tmp_path / "log.txt").read_text()


def test_first_log_line_estimates_the_remaining_time(drawn_balloons, tiny_opts, monkeypatch):
    logged = []
    monkeypatch.setattr("d2_detr.engine.hooks.progress.logger.info", lambda text, *args: logged.append(text % args))
    build_trainer(tiny_opts).train()
    assert re.fullmatch(r"[\d.e-]+ seconds per iteration: 0:00:00 left, without evaluations", logged[0])


def test_four_images_can_be_overfitted(drawn_balloons, tiny_opts):
    """AP50 is above 90 on the training images."""
    opts = (
        "DATASETS.TRAIN ('balloon_drawn_val',) DATASETS.TEST ('balloon_drawn_val',) MODEL.DETR.HIDDEN_DIM 64 "
        "MODEL.DETR.DIM_FEEDFORWARD 128 SOLVER.MAX_ITER 150 SOLVER.STEPS (120,) SOLVER.BASE_LR 0.001 "
        "SOLVER.CHECKPOINT_PERIOD 1000 INPUT.RANDOM_FLIP none"
    ).split()
    trainer = build_trainer([*tiny_opts, *opts])
    trainer.train()
    results = Trainer.test(trainer.cfg, trainer._trainer.model)
    assert results["bbox"]["AP50"] > 90
