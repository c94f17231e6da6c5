import pytest
import torch

from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, Backbone, build_backbone, build_model


@BACKBONE_REGISTRY.register()
class EmbeddedTestBackbone(Backbone):
    def __init__(self, cfg, input_shape):
        super().__init__()
        self.input_shape = input_shape
        self._out_features = ["res2"]
        self._out_feature_channels = {"res2": 8}
        self._out_feature_strides = {"res2": 4}

    def forward(self, images):
        return {"res2": images[:, :, ::4, ::4]}


@META_ARCH_REGISTRY.register()
class EmbeddedTestModel(torch.nn.Linear):
    def __init__(self, cfg):
        super().__init__(1, cfg.SEED)


@BACKBONE_REGISTRY.register()
def build_no_backbone(cfg, input_shape):
    return torch.nn.Identity()


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "EmbeddedTestBackbone", "SEED", 3])
    return cfg


def test_model_is_built_by_name_on_the_device(cfg):
    cfg.MODEL.META_ARCHITECTURE = "EmbeddedTestModel"
    model = build_model(cfg)
    assert isinstance(model, EmbeddedTestModel)
    assert model.weight.shape == (3, 1) and model.weight.device.type == "cpu"


def test_size_divisibility_is_0_by_default(cfg):
    assert build_backbone(cfg).size_divisibility == 0


def test_default_input_channels_are_those_of_the_pixel_mean(cfg):
    assert build_backbone(cfg).input_shape == ShapeSpec(channels=3)
    assert build_backbone(cfg, ShapeSpec(channels=7)).input_shape.channels == 7


def test_backbone_describes_its_outputs(cfg):
    backbone = build_backbone(cfg)
    assert backbone.output_shape() == {"res2": ShapeSpec(channels=8, stride=4)}


def test_backbone_without_forward_is_abstract():
    with pytest.raises(TypeError):
        Backbone()


def test_errors_name_an_unknown_model_or_backbone(cfg):
    cfg.MODEL.META_ARCHITECTURE = cfg.MODEL.BACKBONE.NAME = "Nobody"
    for build in (build_model, build_backbone):
        with pytest.raises(KeyError, match="Nobody"):
            build(cfg)


def test_a_builder_must_return_a_backbone(cfg):
    cfg.MODEL.BACKBONE.NAME = "build_no_backbone"
    with pytest.raises(AssertionError):
        build_backbone(cfg)
