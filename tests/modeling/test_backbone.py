import pytest
import torch

from d2_detr.modeling.backbone import TorchvisionResNet


@pytest.mark.parametrize(
    ("depth", "out_features", "shapes"),
    [
        (18, ("res4",), {"res4": (256, 16)}),
        (34, ("res5",), {"res5": (512, 32)}),
        (50, ("res2", "res3", "res4"), {"res2": (256, 4), "res3": (512, 8), "res4": (1024, 16)}),
        (101, ("res5",), {"res5": (2048, 32)}),
    ],
    ids=["r18-res4", "r34", "r50-three", "r101"],
)  # fmt: skip
def test_features_have_the_declared_channels_and_strides(depth, out_features, shapes):
    backbone = TorchvisionResNet(depth=depth, out_features=out_features).eval()
    declared = {name: (shape.channels, shape.stride) for name, shape in backbone.output_shape().items()}
    assert declared == shapes
    features = backbone(torch.zeros(1, 3, 64, 96))
    assert list(features) == list(shapes), "coarsest last"
    for name, (channels, stride) in shapes.items():
        assert features[name].shape == (1, channels, 64 // stride, 96 // stride)


def test_dc5_keeps_the_stride_and_dilates_blocks_by_1_2_2():
    backbone = TorchvisionResNet(depth=50, dilation=True).eval()
    assert backbone.output_shape()["res5"].stride == 16
    assert backbone(torch.zeros(1, 3, 64, 64))["res5"].shape[-2:] == (4, 4)
    assert [block.conv2.dilation for block in backbone.body["layer4"]] == [(1, 1), (2, 2), (2, 2)]


def test_layers_after_the_last_feature_are_removed():
    names = TorchvisionResNet(depth=18, out_features=("res4",)).state_dict()
    assert not any("layer4" in name or "fc" in name for name in names)


@pytest.mark.parametrize(
    ("freeze_at", "frozen"),
    [(0, []), (1, ["conv1"]), (2, ["conv1", "layer1"]), (5, ["conv1", "layer1", "layer2", "layer3", "layer4"])],
)
def test_freeze_at_counts_the_stem_and_the_stages(freeze_at, frozen):
    parameters = TorchvisionResNet(depth=18, freeze_at=freeze_at).named_parameters()
    assert {name.split(".")[1] for name, p in parameters if not p.requires_grad} == set(frozen)


def test_frozen_batch_norm_has_no_parameters():
    assert not any(".bn" in name for name, _ in TorchvisionResNet(depth=50).named_parameters())


def test_building_downloads_nothing(monkeypatch):
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: pytest.fail("asked for a download"))
    TorchvisionResNet(depth=18)
