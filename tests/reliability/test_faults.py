"""What goes wrong during a training ends it with one message, and with what it has learned."""

import os
import shutil
import time

import psutil
import pytest
import torch
from torch.utils.data import DataLoader

from d2_detr.config import load_config
from d2_detr.engine.bad_steps import replay
from d2_detr.engine.trainer import Trainer
from d2_detr.utils.errors import InputError
from tests.reliability.runs import CONFIG, OPTS, assert_same, end, finish, outcome, start
from tests.shapes import draw_shapes

from detectron2.engine import HookBase


class After(HookBase):
    """Do something after an iteration."""

    def __init__(self, iteration, action):
        self.iteration, self.action = iteration, action

    def after_step(self):
        if self.trainer.iter == self.iteration:
            self.action()


@pytest.fixture
def folder(tmp_path):
    """A dataset of 6 training and 3 validation images that a test may damage."""
    return draw_shapes(tmp_path / "coco")


@pytest.fixture
def build(folder, tmp_path):
    """Build a trainer on these images, which does something after an iteration."""

    def build(*opts, after=None, do=None):
        cfg = load_config(CONFIG, [*OPTS, "OUTPUT_DIR", str(tmp_path / "run"), "SOLVER.STEPS", "()", *opts], folder)
        trainer = Trainer(cfg)
        if do:
            trainer.register_hooks([After(after, do)])
        return trainer

    return build


def saved_iteration(tmp_path):
    return torch.load(tmp_path / "run" / "model_last.pth", weights_only=True)["iteration"]


def images(folder, split="train"):
    return sorted((folder / f"{split}2017").iterdir())


# ---- images


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("damage", [os.unlink, lambda path: os.truncate(path, 100)], ids=["missing", "truncated"])
def test_damaged_image_is_left_out_and_reported_once(build, folder, caplog, num_workers, damage):
    bad = images(folder)[2]
    trainer = build("DATALOADER.NUM_WORKERS", num_workers, "SOLVER.MAX_ITER", "9", after=1, do=lambda: damage(bad))
    seen = []
    trainer.register_hooks([After(8, lambda: seen.extend(record["file_name"] for record in trainer.last_step.batch))])
    with caplog.at_level("WARNING", "d2_detr.data.loaders"):
        trainer.train()
    [warning] = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert str(bad) in warning and "image 1 of at most 1" in warning
    assert len(seen) == 3 and str(bad) not in seen, "another image replaces it"


@pytest.mark.parametrize(
    ("maximum", "number", "message"),
    [("0", 1, "no such image$"), ("0.01", 2, "training image 2 that cannot be used, and .*MAX_BAD_IMAGES allows 1")],
)
def test_too_many_missing_images_end_the_training_saved(build, folder, tmp_path, maximum, number, message):
    def damage():
        for path in images(folder)[:number]:
            path.unlink()

    trainer = build("DATALOADER.MAX_BAD_IMAGES", maximum, "TEST.EVAL_PERIOD", "0", after=2, do=damage)
    with pytest.raises(InputError, match=message):
        trainer.train()
    assert saved_iteration(tmp_path) == trainer.iter - 1 >= 2


def test_vanished_folder_ends_the_training_saved(build, folder, tmp_path):
    trainer = build("TEST.EVAL_PERIOD", "0", after=2, do=lambda: shutil.rmtree(folder / "train2017"))
    with pytest.raises(InputError, match="train2017.*no such image"):
        trainer.train()
    assert saved_iteration(tmp_path) == trainer.iter - 1 >= 2


def test_missing_validation_image_counts_as_without_detections(build, folder, caplog):
    bad = images(folder, "val")[0]
    trainer = build("SOLVER.MAX_ITER", "8", after=1, do=bad.unlink)
    with caplog.at_level("WARNING", "d2_detr.data.loaders"):
        results = trainer.train()
    assert "bbox" in results and f"{bad}: no such image. It is left out: test image 1" in caplog.text


# ---- workers


def test_killed_worker_ends_the_training_saved(build, tmp_path):
    def kill():
        for child in psutil.Process().children():
            child.kill()

    list(DataLoader([0], num_workers=1))  # torch installs a handler with the first loader of a process
    trainer = build("DATALOADER.NUM_WORKERS", "2", "TEST.EVAL_PERIOD", "0", after=3, do=kill)
    with pytest.raises(InputError, match="a worker that loads images has ended.*NUM_WORKERS"):
        trainer.train()
    assert saved_iteration(tmp_path) >= 3


def test_stalled_worker_ends_the_training_saved(build, tmp_path):
    opts = ("DATALOADER.NUM_WORKERS", "1", "DATALOADER.TIMEOUT", "2", "TEST.EVAL_PERIOD", "0")
    trainer = build(*opts)
    mapper = trainer.data_loader._samples._mapper
    trainer.data_loader._samples._mapper = stalling(mapper)
    with pytest.raises(InputError, match="not finished its images for 2 seconds .DATALOADER.TIMEOUT.*network drive"):
        trainer.train()
    assert saved_iteration(tmp_path) >= 2


def stalling(mapper):
    calls = []

    def call(record):
        calls.append(record)
        if len(calls) == 12:
            time.sleep(100)
        return mapper(record)

    return call


# ---- numbers


def test_step_with_a_bad_gradient_can_be_skipped(build, tmp_path, caplog):
    trainer = build("SOLVER.MAX_BAD_STEPS", "2", "SOLVER.MAX_ITER", "8", "TEST.EVAL_PERIOD", "0")
    spoil(trainer, {3, 4})
    with caplog.at_level("WARNING", "d2_detr.engine.trainer"):
        trainer.train()
    skipped = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert [message.split(":")[0] for message in skipped] == ["iteration 3", "iteration 4"]
    assert "the gradient of detr.bbox_embed" in skipped[0] and "2 of at most 2 in a row" in skipped[1]
    steps = {int(state["step"]) for state in trainer.optimizer.state_dict()["state"].values()}
    assert steps == {6}


def test_too_many_bad_steps_end_the_training_saved(build, tmp_path):
    trainer = build("SOLVER.MAX_BAD_STEPS", "2", "TEST.EVAL_PERIOD", "0")
    spoil(trainer, range(3, 100))
    with pytest.raises(InputError, match="iteration 5: the gradient of detr.bbox_embed.*images .*png"):
        trainer.train()
    assert saved_iteration(tmp_path) == 4


def spoil(trainer, iterations):
    """Make the gradient of the box head not a number in some iterations."""
    bias = trainer.model.detr.bbox_embed.layers[-1].bias
    bias.register_hook(lambda gradient: gradient * float("nan") if trainer.iter in iterations else gradient)


def test_saved_step_is_repeated_exactly(build, tmp_path):
    trainer = build("TEST.EVAL_PERIOD", "0", "SOLVER.MAX_ITER", "9")

    def poison():
        with torch.no_grad():
            trainer.model.detr.bbox_embed.layers[-1].bias[0] = float("nan")

    trainer.register_hooks([After(3, poison)])
    with pytest.raises(InputError, match="iteration 4: loss_bbox_0 is nan, loss_giou_0 is nan.*replay"):
        trainer.train()
    losses, bad = replay(tmp_path / "run" / "bad_step_0000004_0.pth")
    bad_losses = {name for name, loss in losses.items() if loss != loss}
    assert bad_losses == {"loss_bbox_0", "loss_giou_0", "loss_bbox", "loss_giou"}
    assert losses["loss_ce"] == trainer.last_step.losses["loss_ce"].item(), "the same images, and the same dropout"
    assert "detr.bbox_embed.layers.2.bias" in bad


def test_diverged_weights_are_not_saved_and_not_evaluated(build, tmp_path):
    trainer = build("SOLVER.CHECKPOINT_PERIOD", "3", "TEST.EVAL_PERIOD", "5")
    step = trainer.optimizer.step

    def diverge(*args, **kwargs):
        step(*args, **kwargs)
        if trainer.iter == 4:
            trainer.model.detr.query_embed.weight.data.fill_(float("inf"))

    trainer.optimizer.step = diverge
    with pytest.raises(InputError, match="iteration 4: the training has diverged.*--lr"):
        trainer.train()
    assert {path.name for path in (tmp_path / "run").glob("*.pth")} == {"model_0000002.pth"}


# ---- files


def test_full_disk_is_reported_with_the_file_and_keeps_what_was_saved(drawn_balloons, tmp_path):
    """A limit on the size of files stands for the full disk."""
    finish(start(tmp_path, "SOLVER.MAX_ITER", "10", "SOLVER.STEPS", "()"))
    before = (tmp_path / "model_0000009.pth").read_bytes()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))"
    output = end(start(tmp_path, resume=True, before=limit), 60)
    assert f"cannot be written: File too large: '{tmp_path}/model_last.pth'" in output and "Traceback" not in output
    assert output.count("To continue: ") == 1
    assert (tmp_path / "model_0000009.pth").read_bytes() == before
    assert not list(tmp_path.glob(".d2*")), "no temporary files are left"


def test_damaged_checkpoint_is_replaced_by_the_one_before(drawn_balloons, tmp_path):
    reference, folder = tmp_path / "reference", tmp_path / "run"
    finish(start(reference))
    finish(start(folder, "SOLVER.MAX_ITER", "30", "SOLVER.STEPS", "(29,)"))
    (folder / "model_final.pth").unlink()
    os.truncate(folder / "model_0000029.pth", 1000)
    output = finish(start(folder, resume=True))
    assert "model_0000029.pth" in output and "Continuing from the older model_0000019.pth" in output
    assert_same(outcome(reference), outcome(folder))


def test_only_damaged_checkpoints_are_an_error_that_names_them(build, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model_0000029.pth").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"no checkpoint in .*run can be continued from: .*model_0000029\.pth"):
        build().resume_or_load(resume=True)


@pytest.mark.parametrize("tag", [b"", b"\xff\xfe\x00", b"/etc/passwd", b"../model_0000009.pth", b"x" * 10000])
def test_damaged_last_checkpoint_file_does_not_matter(build, tmp_path, tag):
    trainer = build("SOLVER.MAX_ITER", "10", "TEST.EVAL_PERIOD", "0")
    trainer.train()
    (tmp_path / "run" / "last_checkpoint").write_bytes(tag)
    again = build("SOLVER.MAX_ITER", "12", "TEST.EVAL_PERIOD", "0")
    again.resume_or_load(resume=True)
    assert again.start_iter == 10
