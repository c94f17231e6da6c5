"""Parity with the official Detectron2 wrapper and with Hugging Face's DETR, through the converter.

A converted checkpoint gives the same detections as the reference, and ten optimizer steps from it lead to the same
parameters. The values were recorded by tests/reference/record_wrapper.py and record_huggingface.py, from
checkpoints filled by the rule of tests/reference/native.py under their own names.
"""

from dataclasses import dataclass

import pytest
import torch
from torchvision.ops import box_convert

from d2_detr.checkpoint.convert import convert
from d2_detr.checkpoint.layouts import Format
from d2_detr.config import load_config
from d2_detr.engine.optimizer import build_optimizer, is_backbone
from tests.reference import native

from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances


@dataclass
class Reference:
    format: Format
    models: tuple[str, ...]
    sizes_hw: list  # of images for detection
    small_sizes_hw: list  # of images for training
    dropped: tuple[str, ...]  # tensors of a checkpoint that are not a part of DETR
    training: tuple[str, ...]  # options that train like the reference


REFERENCES = {
    "wrapper": Reference(
        format=Format.WRAPPER,
        models=tuple(native.DESCENDANTS),
        sizes_hw=native.WHOLE_CELLS_HW,
        small_sizes_hw=native.WHOLE_CELLS_SMALL_HW,
        dropped=("criterion.empty_weight",),
        training=("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "0.01"),
    ),
    "huggingface": Reference(
        format=Format.HUGGING_FACE,
        models=(*native.DESCENDANTS, "r50_small_without_timm"),
        sizes_hw=native.SIZES_HW,
        small_sizes_hw=native.SMALL_SIZES_HW,
        dropped=(),
        training=("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "0.1", "MODEL.BACKBONE.FREEZE_AT", "0"),
    ),
}
# (reference, decoder layers with a loss)
TRAININGS = [("wrapper", "all"), ("huggingface", "last"), ("huggingface", "all")]


@pytest.fixture(scope="module", params=[(r, m) for r in REFERENCES for m in REFERENCES[r].models], ids="-".join)
def detections(request):
    """Recorded values of one model, and the instances that this project detects."""
    name, model_name = request.param
    reference = REFERENCES[name]
    recorded, checkpoint = native.read(f"{name}_{model_name}")
    model, _ = loaded(checkpoint, native.DESCENDANTS.get(model_name, native.SMALL))
    with torch.no_grad():
        outputs = model.eval()(inputs(reference.sizes_hw))
    return recorded, [output["instances"] for output in outputs]


@pytest.fixture(scope="module", params=TRAININGS, ids="-".join)
def training(request):
    """Recorded losses and changes of parameters, and those of this project."""
    name, layers = request.param
    values, checkpoint = native.read(f"{name}_r50_small")
    recorded = {k.removeprefix(f"{layers}/"): value for k, value in values.items() if k.startswith(f"{layers}/")}
    return recorded, trained(checkpoint, REFERENCES[name], deep_supervision=layers == "all")


def test_converted_checkpoint_gives_the_same_boxes(detections):
    recorded, detected = detections
    for index, instances in enumerate(detected):
        expected = Boxes(recorded[f"boxes/{index}"])
        assert expected.tensor.std(0).max() > 0.5, "the same box from every query proves nothing"
        expected.clip(instances.image_size)  # like Detectron2, unlike Hugging Face
        torch.testing.assert_close(instances.pred_boxes.tensor, expected.tensor, rtol=0, atol=0.05)


def test_converted_checkpoint_gives_the_same_scores_and_classes(detections):
    recorded, detected = detections
    assert len(torch.cat([instances.pred_classes for instances in detected])) == 3 * native.NUM_QUERIES
    for index, instances in enumerate(detected):
        assert instances.pred_classes.tolist() == recorded[f"classes/{index}"].tolist()
        assert recorded[f"scores/{index}"].std() > 0.005
        torch.testing.assert_close(instances.scores.float(), recorded[f"scores/{index}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", REFERENCES)
def test_every_tensor_survives_a_round_trip(name):
    reference = REFERENCES[name]
    _, checkpoint = native.read(f"{name}_r50_small")
    plugin, report = to_plugin(checkpoint)
    back, _ = convert(plugin, reference.format)
    assert tuple(report.dropped) == reference.dropped
    assert set(back) == set(checkpoint) - set(reference.dropped)
    for tensor_name, tensor in back.items():
        assert torch.equal(tensor, checkpoint[tensor_name]), tensor_name


def test_losses_of_ten_steps_equal_the_reference(training):
    recorded, computed = training
    assert len(recorded["losses"]) == native.STEPS
    assert recorded["losses"][-1] < 0.97 * recorded["losses"][0], "nothing was learned"
    assert_close(computed, recorded, "losses", rtol=1e-4)


def test_same_parameters_are_trained(training):
    recorded, computed = training
    assert set(computed) == set(recorded)


def test_ten_steps_change_parameters_like_the_reference(training):
    recorded, computed = training
    for name in changes(recorded):
        rate = native.LEARNING_RATE / 10 if is_backbone(name) else native.LEARNING_RATE
        assert_close(computed, recorded, name, atol=1e-2 * rate * native.STEPS)


def test_weight_decay_equals_the_reference(training):
    recorded, computed = training
    # Attention does not depend on the key biases. Nor does it depend on the query and key projections of the first
    # decoder layer, whose input is zero.
    names = [name for name in changes(recorded) if recorded[name].abs().max() < 1e-7]
    assert names
    for name in names:
        assert_close(computed, recorded, name, rtol=1e-2)


def assert_close(computed, recorded, name, *, rtol=0.0, atol=0.0):
    torch.testing.assert_close(
        computed[name].float(), recorded[name], rtol=rtol, atol=atol, msg=lambda m: f"{name}: {m}"
    )


def changes(values):
    return [name for name in values if name.startswith("change/")]


def to_plugin(checkpoint):
    # In Hugging Face's layout, a head of 8 rows has 7 classes or, with ids from 1, 6.
    return convert(checkpoint, Format.PLUGIN, first_class_id=0)


def loaded(checkpoint, sizes, *opts):
    """Detr with the weights of a reference checkpoint, in float64, and its config."""
    cfg = load_config("detr_256_6_6_torchvision.yaml", [*native.config_options(sizes), *opts])
    model = build_model(cfg)
    model.load_state_dict(to_plugin(checkpoint)[0])
    model.criterion.register_forward_pre_hook(targets_in_float64)
    return model.double(), cfg


def targets_in_float64(_, arguments):
    """Detectron2's boxes are float32, and the matcher's cdist needs one dtype."""
    logits, boxes, targets, *rest = arguments
    return logits, boxes, [{**target, "boxes": target["boxes"].double()} for target in targets], *rest


def inputs(sizes_hw):
    """Detectron2's model inputs, for detection and training."""
    return [
        {"image": image, "height": height, "width": width, "instances": instances(target, size_hw)}
        for image, (height, width), target, size_hw in zip(
            native.patchwork_images(sizes_hw), native.OUTPUT_SIZES_HW, native.targets(), sizes_hw, strict=True
        )
    ]


def instances(target, size_hw):
    height, width = size_hw
    boxes = box_convert(target["boxes"], "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
    return Instances(size_hw, gt_boxes=Boxes(boxes), gt_classes=target["labels"])


def trained(checkpoint, reference, *, deep_supervision):
    """Losses of the steps, and changes of the parameters under the names of the reference."""
    model, cfg = loaded(
        checkpoint,
        native.SMALL,
        *("SOLVER.BASE_LR", str(native.LEARNING_RATE)),
        *("MODEL.DETR.DEEP_SUPERVISION", str(deep_supervision)),
        *reference.training,
    )
    optimizer = build_optimizer(cfg, model.train())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = []
    for _ in range(native.STEPS):
        loss = sum(model(inputs(reference.small_sizes_hw)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    before, after = (convert(state_dict, reference.format)[0] for state_dict in (before, model.state_dict()))
    changed = native.sample_of_changes(before, after)
    return {"losses": torch.stack(losses), **{f"change/{name}": change for name, change in changed.items()}}
