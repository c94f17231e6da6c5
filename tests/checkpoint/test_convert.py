"""Conversion between layouts is bit-exact in both directions, and every key is reported."""

import copy

import pytest
import torch
import torchvision
from hypothesis import given, settings

from d2_detr.checkpoint.class_head import UNUSED_LOGIT
from d2_detr.checkpoint.convert import CLASS_HEAD, convert
from d2_detr.checkpoint.layouts import Format, detect_format, from_canonical, to_canonical
from d2_detr.modeling.backbone import TorchvisionResNet
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError
from tests.checkpoint.states import architecture, architectures, assert_same, canonical_state

DETR_FORMATS = [format for format in Format if format is not Format.IMAGENET]
formats = pytest.mark.parametrize("format", DETR_FORMATS, ids=lambda format: format.value)
targets = pytest.mark.parametrize("to", DETR_FORMATS, ids=lambda format: f"to-{format.value}")


def state(format=Format.NATIVE, **sizes):
    return from_canonical(canonical_state(architecture(**sizes)), format)


def head(state_dict, name="bias"):
    return next(t for key, t in state_dict.items() if key.endswith((f"class_embed.{name}", f"classifier.{name}")))


# ---- names


@settings(max_examples=10, deadline=None)
@given(architectures())
def test_round_trip_is_bit_exact_for_all_sizes_and_backbones(sizes):
    canonical = canonical_state(sizes)
    for format in DETR_FORMATS:
        if format is Format.HUGGING_FACE and sizes.pre_norm:
            continue
        native = from_canonical(canonical, Format.NATIVE)
        converted, report = convert(native, format, first_class_id=0)
        assert detect_format(converted) is format
        assert sorted(report.converted) == sorted(native) and report.dropped == []
        back, _ = convert(converted, Format.NATIVE, first_class_id=0)
        assert_same(back, native)


@formats
@targets
def test_every_format_converts_to_every_other(format, to):
    source = state(format, masks=True)
    before = copy.copy(source)
    converted, report = convert(source, to, first_class_id=0)
    assert_same(converted, state(to, masks=True))
    assert report.format is format and sorted(report.converted) == sorted(source)
    assert_same(source, before)


@formats
def test_tensors_of_other_modules_are_dropped_and_named(format):
    source = state(format) | {"criterion.empty_weight": torch.ones(4), "ema.decay": torch.ones(())}
    converted, report = convert(source, Format.PLUGIN, first_class_id=0)
    assert sorted(report.dropped) == ["criterion.empty_weight", "ema.decay"]
    assert "2 dropped" in str(report) and "ema.decay" in str(report)
    assert_same(converted, state(Format.PLUGIN))


@formats
def test_prefix_of_parallel_training_is_removed(format):
    source = {f"module.{name}": tensor for name, tensor in state(format).items()}
    assert_same(convert(source, Format.PLUGIN, first_class_id=0)[0], state(Format.PLUGIN))


def test_wrapper_uses_detectron2_names():
    names = state(Format.WRAPPER, masks=True)
    for name in [
        "detr.detr.backbone.0.backbone.stem.conv1.norm.running_var",
        "detr.detr.backbone.0.backbone.res2.0.shortcut.norm.bias",
        "detr.detr.backbone.0.backbone.res5.2.conv3.weight",
        "detr.detr.transformer.decoder.layers.1.multihead_attn.in_proj_weight",
        "detr.mask_head.lay1.weight",
    ]:
        assert name in names
    assert "detr.backbone.0.backbone.res4.5.conv2.norm.weight" in state(Format.WRAPPER)


def test_hugging_face_uses_the_names_of_its_files():
    names = state(Format.HUGGING_FACE)
    for name in [
        "model.backbone.conv_encoder.model.layer1.0.downsample.1.running_mean",
        "model.encoder.layers.0.self_attn.q_proj.weight",
        "model.decoder.layers.1.encoder_attn.out_proj.bias",
        "model.decoder.layers.1.encoder_attn_layer_norm.bias",
        "model.decoder.layers.0.final_layer_norm.weight",
        "model.decoder.layernorm.weight",
        "model.query_position_embeddings.weight",
        "class_labels_classifier.weight",
        "bbox_predictor.layers.2.bias",
    ]:
        assert name in names
    assert "mask_head.lay1.weight" in state(Format.HUGGING_FACE, masks=True)


def test_queries_keys_and_values_are_thirds_of_in_proj():
    native, theirs = state(), state(Format.HUGGING_FACE)
    in_proj = native["transformer.decoder.layers.1.multihead_attn.in_proj_weight"]
    for part, letter in zip(in_proj.split(8), "qkv", strict=True):
        assert torch.equal(theirs[f"model.decoder.layers.1.encoder_attn.{letter}_proj.weight"], part)


def test_transformers_5_names_in_memory_are_read():
    source = {}
    for name, tensor in state(Format.HUGGING_FACE).items():
        name = name.replace("backbone.conv_encoder.", "backbone.").replace("out_proj", "o_proj")
        source[name.replace(".fc1", ".mlp.fc1").replace(".fc2", ".mlp.fc2")] = tensor
    assert_same(convert(source, Format.NATIVE, first_class_id=0)[0], state())


def test_hugging_face_resnet_without_timm_is_read():
    body = "model.backbone.conv_encoder.model."
    renamed = {
        "conv1.weight": "embedder.embedder.convolution.weight",
        "bn1.bias": "embedder.embedder.normalization.bias",
        "layer1.2.conv3.weight": "encoder.stages.0.layers.2.layer.2.convolution.weight",
        "layer4.0.bn1.running_var": "encoder.stages.3.layers.0.layer.0.normalization.running_var",
        "layer2.0.downsample.0.weight": "encoder.stages.1.layers.0.shortcut.convolution.weight",
        "layer2.0.downsample.1.weight": "encoder.stages.1.layers.0.shortcut.normalization.weight",
    }
    source = state(Format.HUGGING_FACE)
    for name, theirs in renamed.items():
        source[body + theirs] = source.pop(body + name)
    assert_same(convert(source, Format.NATIVE, first_class_id=0)[0], state())


# ---- the class head


def test_92_coco_rows_become_81_and_return_with_11_unused():
    native = state(rows=92)
    plugin, report = convert(native, Format.PLUGIN)
    assert len(head(plugin)) == 81 and report.label_map == LabelMap.coco()
    assert torch.equal(head(plugin)[[0, 79, 80]], head(native)[[1, 90, 91]]), "person, toothbrush, no-object"
    back, report = convert(plugin, Format.NATIVE)
    used = [*LabelMap.coco().ids, 91]
    assert torch.equal(head(back)[used], head(native)[used])
    unused = sorted(set(range(92)) - set(used))
    assert (
        len(unused) == 11 and (head(back)[unused] == UNUSED_LOGIT).all() and (head(back, "weight")[unused] == 0).all()
    )
    assert any("11 rows of unused ids added" in note for note in report.notes)


def test_251_coco_panoptic_rows_become_134_and_return_as_251():
    native = state(rows=251, masks=True)
    plugin, report = convert(native, Format.PLUGIN)
    ids = LabelMap.coco_panoptic().ids
    assert len(head(plugin)) == 134 and report.label_map == LabelMap.coco_panoptic()
    assert torch.equal(head(plugin)[[0, 80, 132, 133]], head(native)[[1, 92, 200, 250]]), (
        "person, banner, rug, no-object"
    )
    for format in (Format.NATIVE, Format.HUGGING_FACE):
        back, _ = convert(plugin, format, label_map=report.label_map)
        again, _ = convert(back, Format.PLUGIN)
        assert_same(again, plugin)
    back, _ = convert(plugin, Format.NATIVE)
    assert len(head(back)) == 251 and torch.equal(head(back)[[*ids, 250]], head(native)[[*ids, 250]])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("mask_head.out_lay.bias"), r"1 of \d+ tensors are missing, first mask_head\.out_lay\.bias"),
        (lambda s: s.update({"mask_head.gn2.weight": torch.zeros(3)}), r"mask_head\.gn2\.weight has the shape \(3,\)"),
        (lambda s: s.pop("mask_head.adapter2.weight"), r"mask_head\.adapter2\.weight is missing"),
        (
            lambda s: s.update({"mask_head.lay1.weight": torch.zeros(128, 128, 3, 3)}),
            "has 128 rows, expected more than",
        ),
    ],
    ids=["missing", "shape", "no_pyramid", "no_heads"],
)
def test_incomplete_mask_head_is_refused_by_name(damage, message):
    source = state(masks=True)
    damage(source)
    with pytest.raises(InputError, match=message):
        convert(source, Format.PLUGIN, first_class_id=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_added_in_a_round_trip_change_no_probability(dtype):
    plugin = state(Format.PLUGIN, rows=81)
    native, _ = convert(plugin, Format.NATIVE)
    states = 3 * torch.randn(50, 8, generator=torch.Generator().manual_seed(0))

    def probabilities(state_dict):
        weight, bias = (head(state_dict, name).to(dtype) for name in ("weight", "bias"))
        return (states.to(dtype) @ weight.T + bias).float().softmax(-1)

    theirs, ours = probabilities(native), probabilities(plugin)
    used = [*LabelMap.coco().ids, 91]
    assert (theirs[:, used] - ours).abs().max() < 1e-6
    assert theirs.sum(-1).sub(theirs[:, used].sum(-1)).abs().max() < 1e-6


def test_round_trip_of_ids_with_gaps_is_bit_exact():
    plugin, label_map = state(Format.PLUGIN, rows=4), LabelMap((3, 7, 20), ("disc", "square", "triangle"))
    native, report = convert(plugin, Format.NATIVE, label_map=label_map)
    assert len(head(native)) == 22 and torch.equal(head(native)[[3, 7, 20, 21]], head(plugin))
    back, report = convert(native, Format.PLUGIN, label_map=report.label_map)
    assert_same(back, plugin)
    assert report.label_map == label_map


def test_large_category_ids_are_replaced_with_a_note():
    label_map = LabelMap((5, 1_000_003), ("a", "b"))
    native, report = convert(state(Format.PLUGIN, rows=3), Format.NATIVE, label_map=label_map)
    assert len(head(native)) == 3 and any("1000003" in note for note in report.notes)
    assert report.label_map == LabelMap((0, 1), ("a", "b"))


def test_hugging_face_rows_are_by_id_only_for_coco():
    coco, _ = convert(state(rows=92), Format.HUGGING_FACE)
    assert len(head(coco)) == 92
    label_map = LabelMap((3, 7, 20), ("disc", "square", "triangle"))
    other, report = convert(state(Format.PLUGIN, rows=4), Format.HUGGING_FACE, label_map=label_map)
    assert len(head(other)) == 4 and report.label_map == label_map


@formats
def test_removed_class_head_is_the_only_difference(format):
    converted, report = convert(state(format, rows=80), Format.PLUGIN, remove_class_head=True)
    removed = {f"detr.{name}" for name in CLASS_HEAD}
    assert_same(converted, {k: t for k, t in state(Format.PLUGIN, rows=80).items() if k not in removed})
    assert "class head removed" in report.notes and report.label_map is None


def test_model_without_class_head_converts_unchanged():
    source = {name: tensor for name, tensor in state().items() if name not in CLASS_HEAD}
    assert_same(convert(source, Format.NATIVE)[0], source)
    with pytest.raises(InputError, match="the source has no class head"):
        convert(source, Format.NATIVE, keep_classes=["person"])


def test_kept_classes_are_in_the_given_order():
    native = state(rows=92)
    plugin, report = convert(native, Format.PLUGIN, keep_classes=["dog", "person"])
    assert torch.equal(head(plugin), head(native)[[18, 1, 91]])
    assert report.label_map == LabelMap((0, 1), ("dog", "person"))


def test_unknown_class_is_refused_by_name():
    with pytest.raises(InputError, match="class unicorn: not in the head; its classes are person, bicycle"):
        convert(state(rows=92), Format.PLUGIN, keep_classes=["person", "unicorn"])


def test_new_head_keeps_no_object_and_is_deterministic():
    source = state(rows=80)  # ambiguous, but only the row of no-object is read
    converted, report = convert(source, Format.PLUGIN, new_classes=3)
    assert head(converted, "weight").shape == (4, 8)
    assert torch.equal(head(converted)[-1], head(source)[-1])
    assert torch.equal(head(converted, "weight")[-1], head(source, "weight")[-1])
    assert_same(converted, convert(source, Format.PLUGIN, new_classes=3)[0])
    assert any("untrained one of 4 rows" in note for note in report.notes)


# ---- torchvision's ImageNet weights


@pytest.mark.parametrize("depth", [18, 50])
def test_imagenet_weights_get_backbone_names(depth):
    with torch.device("meta"):  # names and shapes are enough
        source = getattr(torchvision.models, f"resnet{depth}")(weights=None).state_dict()
        backbone = TorchvisionResNet(depth=depth, norm="BN", freeze_at=0).state_dict()
    canonical, accounts = to_canonical(source, Format.IMAGENET)
    converted = from_canonical(canonical, Format.PLUGIN)
    assert [name for name, new_name in accounts.items() if new_name is None] == ["fc.weight", "fc.bias"]
    assert list(converted) == [f"detr.backbone.0.{name}" for name in backbone]
    assert converted["detr.backbone.0.body.conv1.weight"] is source["conv1.weight"]
    with pytest.raises(InputError, match="only a backbone"):
        convert(source, Format.NATIVE)


# ---- errors


def without(name, **sizes):
    return {key: tensor for key, tensor in state(**sizes).items() if key != name}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"model.0.weight": torch.zeros(1), "epoch": 3}, r"not a checkpoint of DETR.*got epoch, model\.0\.weight"),
        ({}, "not a checkpoint of DETR"),
        (without("input_proj.weight"), r"input_proj\.weight is missing"),
        (without("transformer.encoder.layers.0.norm1.bias"), r"1 of \d+ tensors are missing, first .*norm1\.bias"),
        (without("backbone.0.body.layer3.4.conv2.weight"), r"missing, first backbone.*layer3\.4\.conv2"),
        (without("class_embed.bias"), r"incomplete class head: only class_embed\.weight"),
        (state() | {"bbox_embed.layers.2.weight": torch.zeros(3, 8)}, r"layers\.2\.weight has the shape \(3, 8\)"),
        (state() | {"input_proj.weight": torch.zeros(8)}, r"input_proj\.weight has the shape \(8,\)"),
        (state(pre_norm=True), "pre-norm"),
    ],
    ids=[
        "unknown", "empty", "no_projection", "layer_incomplete", "backbone_incomplete", "half_head", "wrong_shape",
        "wrong_dimensions", "pre_norm",
    ],
)  # fmt: skip
def test_unconvertible_state_dict_is_refused_by_name(source, message):
    with pytest.raises(InputError, match=message):
        convert(source, Format.HUGGING_FACE, first_class_id=0)


def test_missing_projection_and_duplicate_tensor_are_refused():
    theirs = state(Format.HUGGING_FACE)
    key = "model.encoder.layers.1.self_attn.{}_proj.weight"
    with pytest.raises(InputError, match=r"k_proj\.weight is missing, but .*q_proj\.weight is present"):
        convert({name: t for name, t in theirs.items() if name != key.format("k")}, Format.NATIVE)
    twice = theirs | {"model.backbone.model.conv1.weight": torch.zeros(64, 3, 7, 7)}
    with pytest.raises(InputError, match=r"second tensor for backbone\.0\.body\.conv1\.weight"):
        convert(twice, Format.NATIVE)


def test_ambiguous_head_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"3 rows has 2 classes .* or 1 class .*--first-class-id 0 or 1"):
        convert(state(rows=3), Format.PLUGIN)


@pytest.mark.parametrize("to", [Format.NATIVE, Format.HUGGING_FACE], ids=lambda format: format.value)
@pytest.mark.parametrize("ids", [(-1, 5), (-2, -1), (3, 10**9)], ids=["one_negative", "negative", "huge"])
def test_ids_that_cannot_be_rows_are_replaced(to, ids):
    source = state(Format.PLUGIN, rows=3)
    converted, report = convert(source, to, label_map=LabelMap(ids, ("a", "b")))
    assert torch.equal(head(converted), head(source)), "object classes stay apart from no-object"
    if to is Format.NATIVE:
        assert report.label_map == LabelMap((0, 1), ("a", "b"))
        assert any(f"category ids {ids[0]} to {ids[1]} replaced by ids from 0" in note for note in report.notes)
