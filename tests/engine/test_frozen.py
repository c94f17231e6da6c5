"""MODEL.DETR.FROZEN_WEIGHTS: a trained detector stays as it is, a mask head learns beside it."""

import logging

import pytest
import torch

from d2_detr.checkpoint.checkpointer import DetrCheckpointer
from d2_detr.checkpoint.convert import Format, convert
from d2_detr.checkpoint.layouts import MASK_PARTS
from d2_detr.checkpoint.metadata import Metadata
from d2_detr.checkpoint.write import write_checkpoint
from d2_detr.engine.trainer import Trainer
from d2_detr.utils.errors import InputError
from d2_detr.workflows.setup import load_config, setup

from detectron2.modeling import build_model

BOXES, MASKS = "detr_compact_balloon_drawn.yaml", "detr_segm_compact_balloon_drawn.yaml"
MASK_NAMES = tuple(f"detr.{part}" for part in MASK_PARTS)


@pytest.fixture
def opts(drawn_balloons, tiny_opts, tmp_path):
    """As tiny as a model with a mask head can be."""
    (tmp_path / "run").mkdir()
    return [
        *tiny_opts, "MODEL.DETR.HIDDEN_DIM", "128", "MODEL.DETR.NHEADS", "8",
        "OUTPUT_DIR", str(tmp_path / "run"), "TEST.EVAL_PERIOD", "0",
    ]  # fmt: skip


@pytest.fixture
def save(opts, tmp_path):
    """Write a model with other parameters at each call as a checkpoint; gives its path and its state dict."""

    def save(name, config=BOXES, format=Format.PLUGIN, num_classes=1):
        model = build_model(load_config(config, [*opts, "MODEL.DETR.NUM_CLASSES", str(num_classes)]))
        if format is Format.PLUGIN:
            DetrCheckpointer(model, str(tmp_path)).save(name)
        else:
            state_dict, _ = convert(model.state_dict(), format)
            write_checkpoint(tmp_path / f"{name}.pth", state_dict, Format.NATIVE, Metadata())
        return str(tmp_path / f"{name}.pth"), {name: tensor.clone() for name, tensor in model.state_dict().items()}

    return save


def trainer_of(opts, *more):
    trainer = Trainer(load_config(MASKS, [*opts, *more]))
    trainer.resume_or_load(resume=False)
    return trainer


def start(opts, *more, eval_only=False, resume=False):
    return setup(load_config(MASKS, [*opts, *more]), evaluation_only=eval_only, resume=resume)


def assert_detector_is(model, state_dict):
    for name, tensor in model.state_dict().items():
        if not name.startswith(MASK_NAMES):
            assert torch.equal(tensor, state_dict[name]), name


@pytest.mark.parametrize(
    "format", [Format.PLUGIN, Format.NATIVE, Format.WRAPPER, Format.HUGGING_FACE], ids=lambda f: f.value
)
def test_the_detector_of_any_layout_stays_bit_for_bit_while_the_mask_head_learns(opts, save, format):
    path, detector = save("boxes", format=format)
    trainer = trainer_of(opts, "MODEL.DETR.FROZEN_WEIGHTS", path)
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert_detector_is(trainer.model, detector)
    learned = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    assert learned == {name for name in before if name.startswith(MASK_NAMES)}


def test_what_is_frozen_is_in_evaluation_mode_and_has_no_gradients(opts, save):
    path, _ = save("boxes")
    model = trainer_of(opts, "MODEL.DETR.FROZEN_WEIGHTS", path).model.train()
    for name, module in model.detr.named_children():
        is_mask_part = name in ("mask_head", "bbox_attention")
        assert {m.training for m in module.modules()} == {is_mask_part}, name
        assert {p.requires_grad for p in module.parameters()} <= {is_mask_part}, name
    assert model.training


def test_only_the_losses_of_the_masks_are_summed(opts, save):
    path, _ = save("boxes")
    trainer = trainer_of(opts, "MODEL.DETR.FROZEN_WEIGHTS", path)
    batch = next(iter(trainer.build_train_loader(trainer.cfg)))
    losses = trainer.model.train()(batch)
    assert set(losses) == {"loss_mask", "loss_dice"} and all(loss.requires_grad for loss in losses.values())


def test_frozen_weights_win_over_weights_for_what_they_hold_and_say_so(opts, save, monkeypatch, caplog):
    segm, with_masks = save("segm", config=MASKS)
    boxes, detector = save("boxes")
    caplog.set_level(logging.INFO, "fvcore.common.checkpoint")
    monkeypatch.setattr(logging.getLogger("fvcore.common.checkpoint"), "handlers", [caplog.handler])
    trainer = trainer_of(opts, "MODEL.WEIGHTS", segm, "MODEL.DETR.FROZEN_WEIGHTS", boxes)
    assert "boxes.pth win over those of MODEL.WEIGHTS" in caplog.text
    assert_detector_is(trainer.model, detector)
    for name, tensor in trainer.model.state_dict().items():
        if name.startswith(MASK_NAMES):
            assert torch.equal(tensor, with_masks[name]), "the mask head of MODEL.WEIGHTS stays"


def test_without_frozen_weights_everything_is_trained(opts):
    trainer = trainer_of(opts, "MODEL.WEIGHTS", "")
    before = {name: p.clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    changed = {name for name, p in trainer.model.named_parameters() if name in before and not p.equal(before[name])}
    assert changed == set(before) and any(name.startswith("detr.transformer.") for name in changed)


def test_a_resumed_run_does_not_ask_for_the_frozen_weights_again(opts, save, tmp_path):
    path, detector = save("boxes")
    frozen = ("MODEL.DETR.FROZEN_WEIGHTS", path)
    trainer_of(opts, *frozen, "SOLVER.MAX_ITER", "3", "SOLVER.STEPS", "()").train()
    trained = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)["model"]
    (tmp_path / "boxes.pth").unlink()
    start(opts, *frozen, resume=True)
    resumed = Trainer(load_config(MASKS, [*opts, *frozen]))
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 3
    assert all(torch.equal(tensor, trained[name]) for name, tensor in resumed.model.state_dict().items())
    resumed.train()
    assert_detector_is(resumed.model, detector)


# ---- before the work


def test_a_detector_of_another_class_count_is_an_error_before_anything_is_written(opts, save, tmp_path):
    path, _ = save("boxes", num_classes=3)
    with pytest.raises(InputError, match=r"boxes\.pth: .*4 rows does not fit 1 class.*nothing trains it here"):
        start(opts, "MODEL.DETR.FROZEN_WEIGHTS", path)
    assert {p.name for p in (tmp_path / "run").iterdir()} <= {"log.txt"}


def test_a_script_of_ones_own_hears_of_another_class_count_as_well(opts, save):
    path, _ = save("boxes", num_classes=3)
    with pytest.raises(InputError, match="4 rows does not fit 1 class"):
        trainer_of(opts, "MODEL.WEIGHTS", "", "MODEL.DETR.FROZEN_WEIGHTS", path)


def test_a_detector_that_is_not_whole_is_an_error(opts, save, tmp_path):
    path, detector = save("boxes")
    del detector["detr.input_proj.bias"]
    torch.save({"model": detector}, path)
    with pytest.raises(InputError, match=r"boxes\.pth: without 1 tensors of the model, as input_proj\.bias"):
        start(opts, "MODEL.DETR.FROZEN_WEIGHTS", path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("MODEL.DETR.FROZEN_WEIGHTS", "missing.pth"), r"missing\.pth: no such checkpoint"),
        (("MODEL.DETR.FROZEN_WEIGHTS", "boxes.pth", "MODEL.MASK_ON", "False"), "without MODEL.MASK_ON nothing"),
        (("MODEL.DETR.HIDDEN_DIM", "64"), "multiple of 128"),
        (("MODEL.DETR.NHEADS", "4"), "one of 8"),
    ],
    ids=["no_file", "no_masks", "width", "heads"],
)
def test_what_cannot_train_is_told_at_the_start(opts, more, message):
    with pytest.raises((InputError, FileNotFoundError), match=message):
        start(opts, *more)


def test_weights_of_imagenet_are_not_fetched_where_a_detector_takes_their_place(opts, save):
    path, _ = save("boxes")
    cfg = start(
        opts, "MODEL.DETR.FROZEN_WEIGHTS", path,
        "MODEL.WEIGHTS", "detectron2://ImageNetPretrained/torchvision/R-18.pkl",
    )  # fmt: skip
    assert cfg.MODEL.WEIGHTS == ""


def test_an_evaluation_asks_for_a_mask_head_and_not_for_frozen_weights(opts, save):
    boxes, _ = save("boxes")
    segm, _ = save("segm", config=MASKS)
    start(opts, "MODEL.WEIGHTS", segm, "MODEL.DETR.FROZEN_WEIGHTS", "no_longer_there.pth", eval_only=True)
    with pytest.raises(InputError, match=r"boxes\.pth: without a mask head.*nothing trains it here"):
        start(opts, "MODEL.WEIGHTS", boxes, eval_only=True)
