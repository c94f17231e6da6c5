"""Folders of Hugging Face transformers, descriptions and metadata of checkpoints."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from d2_detr.checkpoint.convert import convert
from d2_detr.checkpoint.inspection import describe_checkpoint
from d2_detr.checkpoint.layouts import Format, from_canonical
from d2_detr.checkpoint.metadata import Metadata, checkpoint_metadata
from d2_detr.checkpoint.read import Checkpoint, read_checkpoint
from d2_detr.checkpoint.write import write_checkpoint
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError
from tests.checkpoint.states import architecture, canonical_state

SHAPES = LabelMap((3, 7, 20), ("disc", "square", "triangle"))


@pytest.fixture(scope="module")
def plugin():
    """State dict of a model of three classes."""
    return from_canonical(canonical_state(architecture(depth=18, rows=4)), Format.PLUGIN)


@pytest.fixture
def folder(tmp_path, plugin):
    state_dict, report = convert(plugin, Format.HUGGING_FACE, label_map=SHAPES)
    known = Metadata(report.label_map, 4, True, (128, 192))
    write_checkpoint(tmp_path / "my_detr", state_dict, Format.HUGGING_FACE, known)
    return tmp_path / "my_detr"


def saved_config(folder):
    return json.loads((folder / "config.json").read_text())


def test_written_folder_is_read_back(folder, plugin):
    checkpoint = read_checkpoint(folder)
    assert checkpoint.metadata == Metadata(SHAPES, 4, True, (128, 192))
    back, report = convert(checkpoint.state_dict, Format.PLUGIN, label_map=SHAPES)
    assert back.keys() == plugin.keys() and all(torch.equal(back[name], plugin[name]) for name in plugin)
    assert report.label_map == SHAPES
    by_file = read_checkpoint(folder / "model.safetensors")
    assert by_file.metadata == checkpoint.metadata, "the config beside the file is read"


def test_lightning_checkpoint_is_the_same_model(folder, plugin, tmp_path):
    """Saved like in Hugging Face's fine-tuning notebooks, as `self.model` of a module."""
    weights = read_checkpoint(folder).state_dict
    module_state = {f"model.{name}": weight for name, weight in weights.items()}
    torch.save({"state_dict": module_state, "epoch": 3, "hyper_parameters": {"lr": 1e-4}}, tmp_path / "last.ckpt")
    back, report = convert(read_checkpoint(tmp_path / "last.ckpt").state_dict, Format.PLUGIN, first_class_id=0)
    assert report.format is Format.HUGGING_FACE
    assert back.keys() == plugin.keys() and all(torch.equal(back[name], plugin[name]) for name in plugin)


def test_config_has_sizes_and_labels_of_the_model(folder):
    config = saved_config(folder)
    assert (config["model_type"], config["backbone"], config["dilation"]) == ("detr", "resnet18", True)
    assert (config["d_model"], config["num_queries"], config["encoder_attention_heads"]) == (8, 6, 4)
    assert config["id2label"] == {"0": "disc", "1": "square", "2": "triangle"}
    assert config["label2id"] == {"disc": 0, "square": 1, "triangle": 2}
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    assert processor["size"] == {"shortest_edge": 128, "longest_edge": 192}


@pytest.mark.parametrize(
    ("processor", "sizes"),
    [
        ({"size": {"shortest_edge": 480, "longest_edge": 600}}, (480, 600)),
        ({"size": 480, "max_size": 600}, (480, 600)),  # of old versions
        ({"size": {"height": 480, "width": 600}}, None),
        ({"size": {"shortest_edge": 480, "longest_edge": 600}, "do_resize": False}, (0, 1333)),
        ({}, None),
    ],
    ids=["edges", "old", "fixed", "no_resize", "none"],
)
def test_test_sizes_are_those_of_the_processor(folder, processor, sizes):
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    assert read_checkpoint(folder).metadata.test_sizes == sizes


def test_coco_labels_are_by_category_id(tmp_path):
    native = from_canonical(canonical_state(architecture(depth=18, rows=92)), Format.NATIVE)
    state_dict, report = convert(native, Format.HUGGING_FACE)
    write_checkpoint(tmp_path, state_dict, Format.HUGGING_FACE, Metadata(report.label_map))
    labels = saved_config(tmp_path)["id2label"]
    assert (labels["0"], labels["1"], labels["12"], labels["90"]) == ("N/A", "person", "N/A", "toothbrush")
    assert len(labels) == 91 and "N/A" not in saved_config(tmp_path)["label2id"]
    assert read_checkpoint(tmp_path).metadata.label_map == LabelMap.coco()


@pytest.mark.parametrize(
    ("id2label", "expected"),
    [
        ({"0": "balloon"}, LabelMap((0,), ("balloon",))),
        ({"1": "b", "0": "a"}, LabelMap((0, 1), ("a", "b"))),
        ({"0": "N/A", "1": "balloon"}, LabelMap((1,), ("balloon",))),
        ({"0": "LABEL_0", "1": "LABEL_1"}, None),
        ({}, None),
    ],
    ids=["one", "unsorted", "unused", "generic", "none"],
)
def test_labels_of_a_config_are_read(folder, id2label, expected):
    config = {key: value for key, value in saved_config(folder).items() if key != "category_ids"}
    (folder / "config.json").write_text(json.dumps(config | {"id2label": id2label}))
    assert read_checkpoint(folder).metadata.label_map == expected


def test_auxiliary_loss_is_warned_about(folder, plugin):
    assert not read_checkpoint(folder).metadata.warning
    (folder / "config.json").write_text(json.dumps(saved_config(folder) | {"auxiliary_loss": True}))
    metadata = read_checkpoint(folder).metadata
    assert "auxiliary_loss" in metadata.warning and "auxiliary_loss" in description(plugin, metadata)


def test_pytorch_model_bin_is_read(folder):
    torch.save(read_checkpoint(folder).state_dict, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert read_checkpoint(folder).metadata.num_heads == 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", '{"model_type": "yolos"}', r"config\.json: model_type is 'yolos', expected 'detr'"),
        ("config.json", '{"model_type": "de', r"config\.json: not a complete JSON file"),
        ("model.safetensors", "cut", r"model\.safetensors: not a checkpoint, or truncated"),
    ],
    ids=["another_model", "broken_config", "broken_weights"],
)
def test_bad_file_in_a_folder_is_named(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_checkpoint(folder)


def test_unsupported_backbone_is_refused_before_writing(tmp_path):
    truncated = from_canonical(canonical_state(architecture(depth=18, stages=3)), Format.PLUGIN)
    state_dict, _ = convert(truncated, Format.HUGGING_FACE)
    with pytest.raises(InputError, match="complete ResNet; this backbone is R18 up to layer3"):
        write_checkpoint(tmp_path / "my_detr", state_dict, Format.HUGGING_FACE, Metadata())
    assert not (tmp_path / "my_detr").exists()


def test_safetensors_file_keeps_the_label_map(tmp_path, plugin):
    write_checkpoint(tmp_path / "model.safetensors", plugin, Format.PLUGIN, Metadata(SHAPES))
    checkpoint = read_checkpoint(tmp_path / "model.safetensors")
    assert checkpoint.metadata.label_map == SHAPES
    assert all(torch.equal(checkpoint.state_dict[name], plugin[name]) for name in plugin)


@pytest.mark.parametrize("value", ["model: detr", '{"model": "detr"}', "[]"])
def test_foreign_safetensors_header_is_ignored(tmp_path, plugin, value):
    own = {name: tensor.clone() for name, tensor in plugin.items()}
    save_file(own, tmp_path / "model.safetensors", metadata={"config": value, "label_map": value.replace("{", "[")})
    assert read_checkpoint(tmp_path / "model.safetensors").metadata == Metadata()


def test_disabled_resizing_is_kept(tmp_path, plugin):
    state_dict, _ = convert(plugin, Format.HUGGING_FACE, label_map=SHAPES)
    write_checkpoint(tmp_path, state_dict, Format.HUGGING_FACE, Metadata(test_sizes=(0, 1333)))
    assert read_checkpoint(tmp_path).metadata.test_sizes == (0, 1333)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["do_resize"] is False


# ---- description


def description(state_dict, metadata):
    return describe_checkpoint(Checkpoint("model.pth", Path("model.pth"), state_dict, metadata, {}))


def lines(state_dict, metadata=None):
    return dict(line.split(maxsplit=1) for line in description(state_dict, metadata or Metadata()).splitlines())


def test_description_of_a_complete_checkpoint(plugin):
    described = lines(plugin, Metadata(SHAPES, 4, True))
    assert (described["format"], described["backbone"]) == ("this plugin", "R18, dilated (DC5)")
    assert described["transformer"].startswith("2 encoder and 2 decoder layers, layer norm after")
    assert described["width"] == "8, feed-forward 12, 4 attention heads"
    assert (described["queries"], described["masks"], described["complete"]) == ("6", "no", "yes")
    assert "4 rows, 3 classes and no-object: disc, square, triangle" in described["class"]
    buffers = sum(tensor.numel() for name, tensor in plugin.items() if "running_" in name)
    assert int(described["parameters"].replace(",", "")) == sum(t.numel() for t in plugin.values()) - buffers


@pytest.mark.parametrize(
    ("sizes", "key", "expected"),
    [
        ({"depth": 101, "rows": 92}, "class", "81 of 92 rows kept, 80 classes and no-object: person, bicycle"),
        ({"depth": 101, "rows": 92}, "backbone", "R101 (dilation unknown)"),
        ({"rows": 3}, "class", "say which with --first-class-id 0 or 1"),
        ({"stages": 3}, "backbone", "R50 up to layer3"),
        ({"masks": True}, "masks", "yes"),
        ({"pre_norm": True}, "transformer", "layer norm before each block"),
    ],
    ids=["coco", "r101", "ambiguous", "truncated", "masks", "pre_norm"],
)
def test_description_of_native_checkpoints(sizes, key, expected):
    sizes = {"depth": 50} | sizes
    assert expected in lines(from_canonical(canonical_state(architecture(**sizes)), Format.NATIVE))[key]


def test_description_of_an_incomplete_checkpoint(plugin):
    part = {name: tensor for name, tensor in plugin.items() if "norm1" not in name}
    assert "tensors are missing" in lines(part)["complete"]
    more = plugin | {"detr.ema": torch.zeros(1)}
    assert "1 other tensors are not a part of DETR, first ema" in lines(more)["complete"]


# ---- metadata


def test_metadata_of_native_arguments_and_plugin_config():
    native = {"model": {}, "args": argparse.Namespace(nheads=4, dilation=True)}
    assert checkpoint_metadata(native) == Metadata(None, 4, True)
    config = "MODEL: {DETR: {NHEADS: 4}, RESNETS: {RES5_DILATION: 2}}"
    own = {"model": {}, "config": config, "label_map": SHAPES.to_dict()}
    assert checkpoint_metadata(own) == Metadata(SHAPES, 4, True, config=config)
    assert checkpoint_metadata(own | {"config": config.replace("2", "1")}).dilation is False
    assert checkpoint_metadata({"model": {}}) == Metadata()


@pytest.mark.parametrize("config", ["MODEL: {", "[1]", "MODEL: {DETR: {}}", "", "5"])
def test_malformed_config_is_refused(config):
    with pytest.raises(InputError, match="config of the checkpoint"):
        checkpoint_metadata({"model": {}, "config": config})
