"""Detr with Detectron2's ResNet, if the real Detectron2 is installed."""

import math

import numpy as np
import pytest
import torch

from d2_detr import Predictor
from d2_detr.checkpoint.checkpointer import DetrCheckpointer
from d2_detr.checkpoint.convert import convert
from d2_detr.checkpoint.layouts import Format, from_canonical, to_canonical
from d2_detr.checkpoint.model_config import converted_metadata
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.checkpoint.write import write_checkpoint
from d2_detr.config import load_config
from d2_detr.engine.trainer import Trainer
from d2_detr.modeling.backbone import TorchvisionResNet
from d2_detr.utils.errors import InputError
from tests.inference.untrained import CLASSES
from tests.modeling.small import batch, make_input

import detectron2
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

pytestmark = pytest.mark.skipif("embedded" in detectron2.__version__, reason="requires the real Detectron2")

OPTS = (
    "MODEL.BACKBONE.NAME build_resnet_backbone MODEL.BACKBONE.FREEZE_AT 2 MODEL.RESNETS.DEPTH 50 "
    "MODEL.RESNETS.NORM FrozenBN MODEL.RESNETS.OUT_FEATURES ('res5',) MODEL.RESNETS.STRIDE_IN_1X1 False"
).split()


def config(tiny_opts, *opts):
    return load_config("detr_compact_balloon_drawn.yaml", [*tiny_opts, *OPTS, *opts])


def test_a_detectron2_backbone_can_be_trained_and_evaluated(drawn_balloons, tiny_opts, tmp_path):
    cfg = config(tiny_opts, "SOLVER.MAX_ITER", "3", "SOLVER.STEPS", "()", "MODEL.DETR.NUM_CLASSES", "1")
    trainer = Trainer(cfg)
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    results = Trainer.test(cfg, trainer.model)
    assert set(results["bbox"]) >= {"AP", "AP50"} and math.isfinite(results["bbox"]["AP"])
    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert any("backbone.0.res3" in name for name in changed) and not any("stem" in name for name in changed)
    assert MetadataCatalog.get("balloon_drawn_val").thing_classes == ["balloon"]


MASKS = "MODEL.MASK_ON True MODEL.DETR.HIDDEN_DIM 128 MODEL.DETR.NHEADS 8 MODEL.DETR.NUM_CLASSES 2".split()


def test_a_detectron2_backbone_supports_a_mask_head(drawn_balloons, tiny_opts):
    model = build_model(config(tiny_opts, *MASKS, "MODEL.RESNETS.OUT_FEATURES", "['res2','res3','res4','res5']"))
    losses = model.train()(batch())
    losses["loss_dice"].backward()
    assert model.detr.mask_head.adapter3.weight.grad.abs().max() > 0
    with torch.no_grad():
        [output] = model.eval()([make_input(64, 48)])
    assert output["instances"].pred_masks.shape[1:] == (64, 48)


def test_a_converted_checkpoint_runs_on_the_torchvision_resnet(tiny_opts, tmp_path):
    torch.manual_seed(0)
    cfg = config(tiny_opts, "MODEL.DETR.NUM_CLASSES", "3")
    checkpointer = DetrCheckpointer(build_model(cfg).eval(), str(tmp_path), label_map=CLASSES, config=cfg.dump())
    checkpointer.save("model")
    source = read_checkpoint(tmp_path / "model.pth")
    for format in (Format.PLUGIN, Format.NATIVE):
        state_dict, report = convert(source.state_dict, format, label_map=CLASSES)
        metadata = converted_metadata(source, report.label_map)
        write_checkpoint(tmp_path / "converted.pth", state_dict, format, metadata)
        theirs, ours = (Predictor(tmp_path / f"{name}.pth", threshold=0) for name in ("model", "converted"))
        assert isinstance(ours.model.detr.backbone[0], TorchvisionResNet)
        image = torch.randint(0, 256, (96, 128, 3), dtype=torch.uint8).numpy()
        np.testing.assert_allclose(theirs(image).scores, ours(image).scores, atol=1e-5)


def test_the_error_names_the_feature_maps_that_masks_need(tiny_opts):
    with pytest.raises(InputError, match=r"add res4, res3, res2 to MODEL\.RESNETS\.OUT_FEATURES"):
        build_model(config(tiny_opts, *MASKS))


def test_every_layout_gives_the_same_detections_as_torchvision(tiny_opts, tmp_path):
    torch.manual_seed(0)
    theirs = build_model(config(tiny_opts, "MODEL.DETR.NUM_CLASSES", "3")).eval()
    canonical, _ = to_canonical(theirs.state_dict(), Format.PLUGIN)
    with torch.no_grad():
        for name, tensor in canonical.items():
            if "running_var" in name:
                tensor.fill_(3.0)
    ours_opts = ["MODEL.BACKBONE.NAME", "build_torchvision_resnet_backbone", "MODEL.DETR.NUM_CLASSES", "3"]
    ours = build_model(config(tiny_opts, *ours_opts)).eval()
    inputs = [{"image": torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)}]
    for format in (Format.NATIVE, Format.WRAPPER, Format.HUGGING_FACE):
        torch.save({"model": from_canonical(canonical, format)}, tmp_path / "model.pth")
        detections = []
        for model in (theirs, ours):
            with torch.no_grad():
                for p in model.parameters():
                    p.zero_()
            DetrCheckpointer(model, may_reinitialize=()).load(str(tmp_path / "model.pth"))
            with torch.no_grad():
                detections.append(model(inputs)[0]["instances"])
        torch.testing.assert_close(detections[0].pred_boxes.tensor, detections[1].pred_boxes.tensor, atol=1e-3, rtol=0)
        torch.testing.assert_close(detections[0].scores, detections[1].scores, atol=1e-5, rtol=0)
        assert detections[0].scores.std() > 1e-4
