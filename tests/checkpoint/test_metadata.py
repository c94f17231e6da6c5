"""Metadata of any content: each wrong field is one error with its name."""

import argparse
import json

import pytest
import torch
from safetensors.torch import save_file

from d2_detr.checkpoint.metadata import checkpoint_metadata
from d2_detr.checkpoint.model_config import model_config
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.config import load_config
from d2_detr.utils.errors import InputError

CONFIG = "MODEL: {DETR: {NHEADS: 4}, RESNETS: {RES5_DILATION: 2}}"
LABEL_MAP = {"ids": [0, 1], "names": ["a", "b"]}
LAUGHS = "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\n" + "MODEL: {<<: [*b, *b]}"


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"threshold": "0.5"}, "threshold: expected a number from 0 to 1, got '0.5'"),
        ({"threshold": 7.0}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"label_map": [1, 2]}, "label_map"),
        ({"label_map": None}, "label_map"),
        ({"config": 5}, "config of the checkpoint: expected text"),
        ({"config": None}, "config of the checkpoint: expected text"),
        ({"config": "x" * 300_000}, "config of the checkpoint: expected text of at most 200,000"),
        ({"config": "[" * 5000}, "config of the checkpoint"),
        ({"config": "a: 2024-99-99"}, "config of the checkpoint"),
        ({"config": "a: !!bool maybe"}, "config of the checkpoint"),
        ({"config": "a: !!python/object/apply:os.system [ls]"}, "config of the checkpoint"),
        ({"config": "? [1]\n: 2"}, "config of the checkpoint"),
        ({"config": LAUGHS}, "repeats a part by reference"),
        ({"config": CONFIG.replace("4", "[4]")}, "NHEADS: expected a whole number from 1 to 10000, got a list"),
        ({"config": CONFIG.replace("4", "0")}, "NHEADS"),
        ({"config": CONFIG.replace("2}", "two}")}, "RES5_DILATION"),
        ({"config": CONFIG + "\nINPUT: 5"}, "INPUT"),
        ({"config": CONFIG + "\nINPUT: {MIN_SIZE_TEST: 1000000}"}, "MIN_SIZE_TEST"),
        ({"args": argparse.Namespace(nheads="8")}, "args of the checkpoint: nheads"),
        ({"args": argparse.Namespace(nheads=8, dilation=[])}, "args of the checkpoint: dilation"),
        ({"hugging_face": "detr"}, "hugging_face"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_field_is_named(content, field):
    with pytest.raises(InputError) as error:
        checkpoint_metadata({"config": CONFIG, "label_map": LABEL_MAP} | content if "args" not in content else content)
    assert field in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_list_may_be_repeated_by_reference_in_a_config():
    config = "INPUT: {FORMAT: &id001 [1, 2], CROP: *id001}\n" + CONFIG
    assert checkpoint_metadata({"config": config}).num_heads == 4


@pytest.mark.parametrize(
    ("name", "content", "field"),
    [
        ("config.json", {"id2label": ["a", "b"]}, "config.json: id2label: expected names with values, got a list"),
        ("config.json", {"id2label": {"first": "a"}}, "config.json: id2label: expected a row with its class"),
        ("config.json", {"id2label": {"-1": "a"}}, "config.json: id2label"),
        ("config.json", {"id2label": {"9" * 5000: "a"}}, "config.json: id2label"),
        ("config.json", {"id2label": {"0": ["a"]}}, "config.json: id2label"),
        ("config.json", {"id2label": {"0": "a", "1": "b"}, "category_ids": [[1], [2]]}, "config.json: label_map"),
        ("config.json", {"id2label": {"0": "a", "1": "b"}, "category_ids": [1]}, "config.json: label map"),
        ("config.json", {"id2label": {"0": "a"}, "category_ids": "1"}, "config.json: category_ids"),
        ("config.json", {"encoder_attention_heads": "8"}, "config.json: encoder_attention_heads"),
        ("config.json", {"encoder_attention_heads": 0}, "config.json: encoder_attention_heads"),
        ("config.json", {"dilation": "yes"}, "config.json: dilation"),
        ("config.json", {"auxiliary_loss": 5}, "config.json: auxiliary_loss"),
        ("config.json", {"model_type": {"a": 1}}, "config.json: model_type"),
        ("preprocessor_config.json", {"size": "large"}, "preprocessor_config.json: size"),
        ("preprocessor_config.json", {"size": {"shortest_edge": -1}}, "preprocessor_config.json: size: shortest_edge"),
        ("preprocessor_config.json", {"size": {"longest_edge": 1e9}}, "preprocessor_config.json: size: longest_edge"),
        ("preprocessor_config.json", {"do_resize": "no"}, "preprocessor_config.json: do_resize"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_field_of_a_hugging_face_folder_is_named(tmp_path, name, content, field):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "detr"}')
    (tmp_path / name).write_text(json.dumps({"model_type": "detr"} | content))
    with pytest.raises(InputError) as error:
        read_checkpoint(tmp_path)
    assert field in str(error.value) and str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.fixture(scope="module")
def model():
    """A state dict, and the config that builds its model."""
    from detectron2.modeling import META_ARCH_REGISTRY

    cfg = load_config(
        "Base-DETR.yaml",
        "MODEL.DETR.HIDDEN_DIM 32 MODEL.DETR.NHEADS 4 MODEL.DETR.DIM_FEEDFORWARD 16 MODEL.DETR.ENC_LAYERS 1 "
        "MODEL.DETR.DEC_LAYERS 1 MODEL.DETR.NUM_CLASSES 2 MODEL.RESNETS.DEPTH 18 MODEL.DEVICE cpu".split(),
    )
    return META_ARCH_REGISTRY.get("Detr")(cfg).state_dict(), cfg


def changed(cfg, key, value):
    """The config as text with another value, of any type."""
    cfg = cfg.clone()
    *sections, name = key.split(".")
    node = cfg
    for section in sections:
        node = node[section]
    dict.__setitem__(node, name, value)
    return cfg.dump()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.PIXEL_MEAN", [1.0, 2.0]),
        ("MODEL.PIXEL_STD", [1.0] * 4),
        ("MODEL.PIXEL_MEAN", "gray"),
        ("MODEL.DETR.HIDDEN_DIM", 10**9),
        ("MODEL.DETR.ENC_LAYERS", 10**9),
        ("MODEL.DETR.DEC_LAYERS", -1),
        ("MODEL.DETR.NUM_OBJECT_QUERIES", 10**9),
        ("MODEL.DETR.NHEADS", 5),
        ("MODEL.DETR.DROPOUT", 7.0),
        ("MODEL.DETR.PRE_NORM", []),
        ("MODEL.RESNETS.DEPTH", 34),
        ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN"),
        ("MODEL.BACKBONE.NAME", "unknown"),
        ("MODEL.DETR.NO_SUCH_KEY", 1),
        ("MODEL.DETR.NUM_CLASSES", "two"),
        ("INPUT.MIN_SIZE_TEST", "(" * 3000),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_config_of_another_model_is_refused_unbuilt(tmp_path, model, key, value):
    state_dict, cfg = model
    torch.save({"model": state_dict, "config": changed(cfg, key, value)}, tmp_path / "model.pth")
    with pytest.raises(InputError) as error:
        model_config(read_checkpoint(tmp_path / "model.pth"))
    assert str(error.value).startswith(f"{tmp_path}/model.pth: config of the checkpoint")
    assert key.rpartition(".")[2] in str(error.value) or str(value) in str(error.value), str(error.value)


def test_the_unchanged_config_builds_the_model(tmp_path, model):
    state_dict, cfg = model
    torch.save({"model": state_dict, "config": cfg.dump()}, tmp_path / "model.pth")
    assert model_config(read_checkpoint(tmp_path / "model.pth"))[0].MODEL.DETR == cfg.MODEL.DETR
