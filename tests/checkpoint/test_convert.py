"""Conversion of state dicts, with an account of every key."""

import copy

import pytest
import torch
import torchvision

from d2_detr.checkpoint.convert import Format, detect_format, to_plugin
from d2_detr.errors import InputError
from d2_detr.modeling.backbone import TorchvisionResNet

# The category ids that COCO's annotations use, written out from its list of names: person 1 .. toothbrush 90.
COCO_IDS = [
    *range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70, *range(72, 83), *range(84, 91)
]  # fmt: skip
NO_OBJECT = 91


def native(rows=92):
    """The names of native DETR; every row of the class head holds its own number."""
    return {
        "transformer.encoder.layers.0.norm1.weight": torch.full((8,), 2.0),
        "class_embed.weight": torch.arange(rows).float()[:, None].repeat(1, 8),
        "class_embed.bias": torch.arange(rows).float(),
        "bbox_embed.layers.0.bias": torch.full((8,), 3.0),
        "query_embed.weight": torch.full((92, 8), 4.0),
        "input_proj.bias": torch.full((8,), 5.0),
        "backbone.0.body.conv1.weight": torch.full((4, 3, 7, 7), 6.0),
    }


def plugin():
    return {f"detr.{name}": tensor for name, tensor in native(3).items()}


def imagenet():
    return torchvision.models.resnet18(weights=None).state_dict()


LAYOUTS = {Format.NATIVE: native, Format.PLUGIN: plugin, Format.IMAGENET: imagenet}
layouts = pytest.mark.parametrize("format", LAYOUTS, ids=lambda format: format.name.lower())


def assert_same(a, b):
    assert list(a) == list(b)
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


@layouts
def test_a_layout_is_recognised_by_its_names(format):
    assert detect_format(LAYOUTS[format]()) is format
    assert to_plugin(LAYOUTS[format]())[1].format is format


@layouts
@pytest.mark.parametrize("remove_class_head", [False, True], ids=["whole", "without_class_head"])
def test_every_key_is_converted_once_or_dropped_once_and_the_source_stays_as_it_was(format, remove_class_head):
    source = LAYOUTS[format]()
    before = copy.deepcopy(source)
    converted, report = to_plugin(source, remove_class_head=remove_class_head)
    assert sorted(report.converted + report.dropped) == sorted(source)
    assert len(converted) == len(report.converted)
    assert all(name.startswith("detr.") for name in converted)
    assert_same(source, before)


# ---- native DETR


def test_native_names_get_the_prefix_and_tensors_stay():
    converted, report = to_plugin(native(3))
    assert_same(converted, plugin())
    assert report.dropped == [] and report.notes == []


def test_of_92_rows_the_80_of_coco_and_no_object_stay_in_order():
    assert len(COCO_IDS) == 80
    converted, report = to_plugin(native(92))
    expected = [float(row) for row in (*COCO_IDS, NO_OBJECT)]
    assert converted["detr.class_embed.bias"].tolist() == expected
    assert converted["detr.class_embed.weight"].tolist() == [[row] * 8 for row in expected]
    assert len(report.notes) == 2 and "92 rows of COCO ids to 81" in report.notes[0]


def test_only_the_class_head_loses_rows():
    assert to_plugin(native(92))[0]["detr.query_embed.weight"].shape == (92, 8)


@pytest.mark.parametrize("rows", [2, 81, 91, 93, 251])
def test_another_number_of_rows_is_kept_as_it_is(rows):
    converted, _ = to_plugin(native(rows))
    assert converted["detr.class_embed.bias"].tolist() == list(range(rows))


def test_92_rows_in_the_layout_of_the_plugin_are_92_rows():
    converted, _ = to_plugin({f"detr.{name}": tensor for name, tensor in native(92).items()})
    assert len(converted["detr.class_embed.bias"]) == 92


@pytest.mark.parametrize("prefix", ["", "detr."], ids=["native", "plugin"])
def test_without_the_class_head_nothing_else_is_missing_and_the_report_says_so(prefix):
    source = {prefix + name: tensor for name, tensor in native().items()}
    converted, report = to_plugin(source, remove_class_head=True)
    head = [f"{prefix}class_embed.weight", f"{prefix}class_embed.bias"]
    assert report.dropped == head and report.notes == []
    assert set(converted) == {f"detr.{name}" for name in native() if "class_embed" not in name}
    assert f"2 dropped ({', '.join(head)})" in str(report)


# ---- this plugin's own


def test_the_plugins_own_layout_comes_back_as_it_is():
    assert_same(to_plugin(plugin())[0], plugin())


def test_what_is_not_of_the_network_is_dropped_and_not_renamed():
    converted, report = to_plugin(plugin() | {"criterion.empty_weight": torch.ones(4)})
    assert report.dropped == ["criterion.empty_weight"]
    assert_same(converted, plugin())


# ---- torchvision's ImageNet weights


@pytest.mark.parametrize("depth", [18, 50])
def test_imagenet_weights_have_the_names_of_the_backbone_and_the_classifier_is_dropped(depth):
    with torch.device("meta"):  # names and shapes are enough
        source = getattr(torchvision.models, f"resnet{depth}")(weights=None).state_dict()
        backbone = TorchvisionResNet(depth=depth, norm="BN", freeze_at=0).state_dict()
    converted, report = to_plugin(source)
    assert report.dropped == ["fc.weight", "fc.bias"]
    assert list(converted) == [f"detr.backbone.0.{name}" for name in backbone]
    assert converted["detr.backbone.0.body.conv1.weight"] is source["conv1.weight"]


# ---- refused


@pytest.mark.parametrize(
    "names",
    [
        ["detr.query_embed.weight", "mask_head.lay1.weight"],
        ["bbox_attention.q_linear.weight", "detr.query_embed.weight"],
    ],
    ids=["mask_head", "attention"],
)
def test_a_segmentation_checkpoint_is_refused_by_name(names):
    with pytest.raises(InputError, match="segmentation checkpoint"):
        to_plugin(dict.fromkeys(names, torch.zeros(1)))


def test_an_unknown_layout_is_refused_with_its_names_and_the_known_ones():
    with pytest.raises(InputError, match=r"query_embed\.weight.*torchvision.*got model\.0\.weight, epoch, ") as error:
        to_plugin({"model.0.weight": torch.zeros(1), "epoch": 3, "a": 1, "b": 2})
    assert "b" not in str(error.value).split("got")[1].split(", ")


def test_an_empty_state_dict_is_refused():
    with pytest.raises(InputError, match="not a checkpoint of DETR"):
        to_plugin({})
