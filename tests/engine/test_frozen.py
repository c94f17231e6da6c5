"""MODEL.DETR.FROZEN_WEIGHTS: a trained detector is frozen while a mask head is trained."""

import logging

import pytest
import torch

from d2_detr.checkpoint.checkpointer import DetrCheckpointer
from d2_detr.checkpoint.convert import Format, convert
from d2_detr.checkpoint.layouts import MASK_PARTS
from d2_detr.checkpoint.metadata import Metadata
from d2_detr.checkpoint.write import write_checkpoint
from d2_detr.config import load_config
from d2_detr.engine.trainer import Trainer
from d2_detr.utils.errors import InputError
from d2_detr.workflows.prepare_run import prepare_run

from detectron2.modeling import build_model

BOXES, MASKS = "detr_compact_balloon_drawn.yaml", "detr_segm_compact_balloon_drawn.yaml"
MASK_NAMES = tuple(f"detr.{part}" for part in MASK_PARTS)


@pytest.fixture
def opts(drawn_balloons, tiny_opts, tmp_path):
    """Options of the smallest model with a mask head."""
    (tmp_path / "run").mkdir()
    return [
        *tiny_opts, "MODEL.DETR.HIDDEN_DIM", "128", "MODEL.DETR.NHEADS", "8",
        "OUTPUT_DIR", str(tmp_path / "run"), "TEST.EVAL_PERIOD", "0",
    ]  # fmt: skip


@pytest.fixture
def save(opts, tmp_path):
    """Save a model with new parameters at each call; return the path and the state dict."""

    def save(name, config=BOXES, format=Format.PLUGIN, num_classes=1):
        model = build_model(load_config(config, [*opts, "MODEL.DETR.NUM_CLASSES", str(num_classes)]))
        if format is Format.PLUGIN:
            DetrCheckpointer(model, str(tmp_path)).save(name)
        else:
            state_dict, _ = convert(model.state_dict(), format)
            write_checkpoint(tmp_path / f"{name}.pth", state_dict, Format.NATIVE, Metadata())
        return str(tmp_path / f"{name}.pth"), {name: tensor.clone() for name, tensor in model.state_dict().items()}

    return save


def build_trainer(opts, *more):
    trainer = Trainer(load_config(MASKS, [*opts, *more]))
    trainer.resume_or_load(resume=False)
    return trainer


def prepare(opts, *more, eval_only=False, resume=False):
    return prepare_run(load_config(MASKS, [*opts, *more]), evaluation_only=eval_only, resume=resume)[0]


def assert_detector_equals(model, state_dict):
    for name, tensor in model.state_dict().items():
        if not name.startswith(MASK_NAMES):
            assert torch.equal(tensor, state_dict[name]), name


@pytest.mark.parametrize(
    "format", [Format.PLUGIN, Format.NATIVE, Format.WRAPPER, Format.HUGGING_FACE], ids=lambda f: f.value
)
def test_detector_of_any_layout_stays_bit_exact(opts, save, format):
    path, detector = save("boxes", format=format)
    trainer = build_trainer(opts, "MODEL.DETR.FROZEN_WEIGHTS", path)
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert_detector_equals(trainer.model, detector)
    learned = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    assert learned == {name for name in before if name.startswith(MASK_NAMES)}


def test_frozen_modules_are_in_eval_mode_without_gradients(opts, save):
    path, _ = save("boxes")
    model = build_trainer(opts, "MODEL.DETR.FROZEN_WEIGHTS", path).model.train()
    for name, module in model.detr.named_children():
        is_mask_part = name in ("mask_head", "bbox_attention")
        assert {m.training for m in module.modules()} == {is_mask_part}, name
        assert {p.requires_grad for p in module.parameters()} <= {is_mask_part}, name
    assert model.training


def test_only_mask_losses_are_computed(opts, save):
    path, _ = save("boxes")
    trainer = build_trainer(opts, "MODEL.DETR.FROZEN_WEIGHTS", path)
    batch = next(iter(trainer.data_loader))
    losses = trainer.model.train()(batch)
    assert set(losses) == {"loss_mask", "loss_dice"} and all(loss.requires_grad for loss in losses.values())


def test_frozen_weights_override_weights_with_a_message(opts, save, monkeypatch, caplog):
    segm, with_masks = save("segm", config=MASKS)
    boxes, detector = save("boxes")
    caplog.set_level(logging.INFO, "d2_detr.checkpoint")
    monkeypatch.setattr(logging.getLogger("d2_detr.checkpoint"), "handlers", [caplog.handler])
    trainer = build_trainer(opts, "MODEL.WEIGHTS", segm, "MODEL.DETR.FROZEN_WEIGHTS", boxes)
    assert "boxes.pth replace those of MODEL.WEIGHTS" in caplog.text
    assert_detector_equals(trainer.model, detector)
    for name, tensor in trainer.model.state_dict().items():
        if name.startswith(MASK_NAMES):
            assert torch.equal(tensor, with_masks[name]), "the mask head of MODEL.WEIGHTS is kept"


def test_without_frozen_weights_everything_is_trained(opts):
    trainer = build_trainer(opts, "MODEL.WEIGHTS", "")
    before = {name: p.clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    changed = {name for name, p in trainer.model.named_parameters() if name in before and not p.equal(before[name])}
    assert changed == set(before) and any(name.startswith("detr.transformer.") for name in changed)


def test_resumed_run_does_not_need_the_frozen_weights(opts, save, tmp_path):
    path, detector = save("boxes")
    frozen = ("MODEL.DETR.FROZEN_WEIGHTS", path)
    build_trainer(opts, *frozen, "SOLVER.MAX_ITER", "3", "SOLVER.STEPS", "()").train()
    trained = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)["model"]
    (tmp_path / "boxes.pth").unlink()
    prepare(opts, *frozen, resume=True)
    resumed = Trainer(load_config(MASKS, [*opts, *frozen]))
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 3
    assert all(torch.equal(tensor, trained[name]) for name, tensor in resumed.model.state_dict().items())
    resumed.train()
    assert_detector_equals(resumed.model, detector)


# ---- validation before a run


def test_another_class_count_is_an_error_and_writes_nothing(opts, save, tmp_path):
    path, _ = save("boxes", num_classes=3)
    with pytest.raises(InputError, match=r"boxes\.pth: .*4 rows does not fit 1 class.*nothing trains it here"):
        prepare(opts, "MODEL.DETR.FROZEN_WEIGHTS", path)
    assert {p.name for p in (tmp_path / "run").iterdir()} <= {"log.txt"}


def test_trainer_refuses_another_class_count(opts, save):
    path, _ = save("boxes", num_classes=3)
    with pytest.raises(InputError, match="4 rows does not fit 1 class"):
        build_trainer(opts, "MODEL.WEIGHTS", "", "MODEL.DETR.FROZEN_WEIGHTS", path)


def test_incomplete_detector_is_an_error(opts, save, tmp_path):
    path, detector = save("boxes")
    del detector["detr.input_proj.bias"]
    torch.save({"model": detector}, path)
    with pytest.raises(InputError, match=r"boxes\.pth: detector: the checkpoint lacks input_proj\.bias; nothing"):
        prepare(opts, "MODEL.DETR.FROZEN_WEIGHTS", path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("MODEL.DETR.FROZEN_WEIGHTS", "missing.pth"), r"missing\.pth: no such checkpoint"),
        (("MODEL.DETR.FROZEN_WEIGHTS", "boxes.pth", "MODEL.MASK_ON", "False"), "without MODEL.MASK_ON nothing"),
        (("MODEL.DETR.HIDDEN_DIM", "64"), "multiple of 128"),
        (("MODEL.DETR.NHEADS", "4"), "multiple of 8"),
    ],
    ids=["no_file", "no_masks", "width", "heads"],
)
def test_invalid_mask_training_is_an_error_at_the_start(opts, more, message):
    with pytest.raises((InputError, FileNotFoundError), match=message):
        prepare(opts, *more)


def test_imagenet_weights_are_not_used_with_frozen_weights(opts, save):
    path, _ = save("boxes")
    cfg = prepare(
        opts, "MODEL.DETR.FROZEN_WEIGHTS", path,
        "MODEL.WEIGHTS", "detectron2://ImageNetPretrained/torchvision/R-18.pkl",
    )  # fmt: skip
    assert cfg.MODEL.WEIGHTS == ""


def test_evaluation_needs_a_mask_head_not_frozen_weights(opts, save):
    boxes, _ = save("boxes")
    segm, _ = save("segm", config=MASKS)
    prepare(opts, "MODEL.WEIGHTS", segm, "MODEL.DETR.FROZEN_WEIGHTS", "no_longer_there.pth", eval_only=True)
    with pytest.raises(InputError, match=r"boxes\.pth: mask head: the checkpoint has none; nothing trains it here"):
        prepare(opts, "MODEL.WEIGHTS", boxes, eval_only=True)
