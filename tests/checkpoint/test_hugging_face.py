"""Folders of Hugging Face's: written so that they can be read, read with their labels."""

import argparse
import json

import pytest
import torch
from safetensors.torch import save_file

from d2_detr.checkpoint.convert import Format, convert
from d2_detr.checkpoint.inspection import inspect
from d2_detr.checkpoint.layouts import from_canonical
from d2_detr.checkpoint.metadata import Metadata, checkpoint_metadata
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.checkpoint.write import write_checkpoint
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError
from tests.checkpoint.states import architecture, common_state

SHAPES = LabelMap((3, 7, 20), ("disc", "square", "triangle"))


@pytest.fixture(scope="module")
def plugin():
    """A model of three classes; its backbone takes memory, for it is written."""
    return from_canonical(common_state(architecture(depth=18, rows=4)), Format.PLUGIN)


@pytest.fixture
def folder(tmp_path, plugin):
    state_dict, report = convert(plugin, Format.HUGGING_FACE, label_map=SHAPES)
    known = Metadata(report.label_map, 4, True, (128, 192))
    write_checkpoint(tmp_path / "my_detr", state_dict, Format.HUGGING_FACE, known)
    return tmp_path / "my_detr"


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_folder_that_was_written_gives_back_tensors_labels_ids_heads_dilation_and_sizes(folder, plugin):
    checkpoint = read_checkpoint(folder)
    assert checkpoint_metadata(checkpoint) == Metadata(SHAPES, 4, True, (128, 192))
    back, report = convert(checkpoint["model"], Format.PLUGIN, label_map=SHAPES)
    assert back.keys() == plugin.keys() and all(torch.equal(back[name], plugin[name]) for name in plugin)
    assert report.label_map == SHAPES
    by_file = read_checkpoint(folder / "model.safetensors")
    assert checkpoint_metadata(by_file) == checkpoint_metadata(checkpoint), "the file alone finds the config beside it"


def test_a_model_of_theirs_that_lightning_trained_is_the_same_model(folder, plugin, tmp_path):
    """Saved as their notebooks for fine-tuning have it: `self.model` of a module."""
    weights = read_checkpoint(folder)["model"]
    of_module = {f"model.{name}": weight for name, weight in weights.items()}
    torch.save({"state_dict": of_module, "epoch": 3, "hyper_parameters": {"lr": 1e-4}}, tmp_path / "last.ckpt")
    back, report = convert(read_checkpoint(tmp_path / "last.ckpt")["model"], Format.PLUGIN, first_class_id=0)
    assert report.format is Format.HUGGING_FACE
    assert back.keys() == plugin.keys() and all(torch.equal(back[name], plugin[name]) for name in plugin)


def test_the_config_has_the_sizes_and_labels_of_the_model(folder):
    config = config_of(folder)
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
    ids=["edges", "old", "fixed", "as_they_are", "none"],
)
def test_the_sizes_of_pictures_are_those_of_the_processor(folder, processor, sizes):
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    assert checkpoint_metadata(read_checkpoint(folder)).test_sizes == sizes


def test_cocos_labels_stand_by_category_id(tmp_path):
    native = from_canonical(common_state(architecture(depth=18, rows=92)), Format.NATIVE)
    state_dict, report = convert(native, Format.HUGGING_FACE)
    write_checkpoint(tmp_path, state_dict, Format.HUGGING_FACE, Metadata(report.label_map))
    labels = config_of(tmp_path)["id2label"]
    assert (labels["0"], labels["1"], labels["12"], labels["90"]) == ("N/A", "person", "N/A", "toothbrush")
    assert len(labels) == 91 and "N/A" not in config_of(tmp_path)["label2id"]
    assert checkpoint_metadata(read_checkpoint(tmp_path)).label_map == LabelMap.coco()


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
    config = {key: value for key, value in config_of(folder).items() if key != "category_ids"}
    (folder / "config.json").write_text(json.dumps(config | {"id2label": id2label}))
    assert checkpoint_metadata(read_checkpoint(folder)).label_map == expected


def test_what_transformers_computes_otherwise_with_auxiliary_loss_is_told(folder, plugin):
    assert not checkpoint_metadata(read_checkpoint(folder)).warning
    (folder / "config.json").write_text(json.dumps(config_of(folder) | {"auxiliary_loss": True}))
    metadata = checkpoint_metadata(read_checkpoint(folder))
    assert "auxiliary_loss" in metadata.warning and "auxiliary_loss" in inspect(plugin, metadata)


def test_weights_of_older_versions_are_read(folder):
    torch.save(read_checkpoint(folder)["model"], folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert checkpoint_metadata(read_checkpoint(folder)).num_heads == 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", '{"model_type": "yolos"}', r"config\.json: model_type is 'yolos', expected 'detr'"),
        ("config.json", '{"model_type": "de', r"config\.json: not a complete JSON file"),
        ("model.safetensors", "cut", r"model\.safetensors: not a checkpoint, or cut short"),
    ],
    ids=["another_model", "broken_config", "broken_weights"],
)
def test_a_folder_with_something_wrong_is_refused_by_file(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_checkpoint(folder)


def test_a_backbone_that_hugging_face_cannot_have_is_refused_and_nothing_is_written(tmp_path):
    cut = from_canonical(common_state(architecture(depth=18, stages=3)), Format.PLUGIN)
    state_dict, _ = convert(cut, Format.HUGGING_FACE)
    with pytest.raises(InputError, match="whole ResNet; this backbone is R18 up to layer3"):
        write_checkpoint(tmp_path / "my_detr", state_dict, Format.HUGGING_FACE, Metadata())
    assert not (tmp_path / "my_detr").exists()


def test_a_safetensors_file_keeps_the_label_map(tmp_path, plugin):
    write_checkpoint(tmp_path / "model.safetensors", plugin, Format.PLUGIN, Metadata(SHAPES))
    checkpoint = read_checkpoint(tmp_path / "model.safetensors")
    assert checkpoint_metadata(checkpoint).label_map == SHAPES
    assert all(torch.equal(checkpoint["model"][name], plugin[name]) for name in plugin)


@pytest.mark.parametrize("value", ["model: detr", '{"model": "detr"}', "[]"])
def test_what_others_wrote_into_a_safetensors_file_is_passed_over(tmp_path, plugin, value):
    own = {name: tensor.clone() for name, tensor in plugin.items()}
    save_file(own, tmp_path / "model.safetensors", metadata={"config": value, "label_map": value.replace("{", "[")})
    assert checkpoint_metadata(read_checkpoint(tmp_path / "model.safetensors")) == Metadata()


def test_pictures_as_they_are_stay_so(tmp_path, plugin):
    state_dict, _ = convert(plugin, Format.HUGGING_FACE, label_map=SHAPES)
    write_checkpoint(tmp_path, state_dict, Format.HUGGING_FACE, Metadata(test_sizes=(0, 1333)))
    assert checkpoint_metadata(read_checkpoint(tmp_path)).test_sizes == (0, 1333)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["do_resize"] is False


# ---- what a checkpoint is, in words


def lines(state_dict, metadata=None):
    return dict(line.split(maxsplit=1) for line in inspect(state_dict, metadata or Metadata()).splitlines())


def test_inspection_says_format_backbone_layers_queries_classes_masks_and_parameters(plugin):
    said = lines(plugin, Metadata(SHAPES, 4, True))
    assert (said["format"], said["backbone"]) == ("this plugin", "R18, dilated (DC5)")
    assert said["transformer"].startswith("2 encoder and 2 decoder layers, layer norm after")
    assert said["width"] == "8, feed-forward 12, 4 attention heads"
    assert (said["queries"], said["masks"], said["complete"]) == ("6", "no", "yes")
    assert "4 rows, 3 classes and no-object: disc, square, triangle" in said["class"]
    buffers = sum(tensor.numel() for name, tensor in plugin.items() if "running_" in name)
    assert int(said["parameters"].replace(",", "")) == sum(t.numel() for t in plugin.values()) - buffers


@pytest.mark.parametrize(
    ("sizes", "key", "expected"),
    [
        ({"depth": 101, "rows": 92}, "class", "of 92 rows 81 kept, 80 classes and no-object: person, bicycle"),
        ({"depth": 101, "rows": 92}, "backbone", "R101 (dilated or not: the file does not tell)"),
        ({"rows": 3}, "class", "say which with --first-class-id 0 or 1"),
        ({"stages": 3}, "backbone", "R50 up to layer3"),
        ({"masks": True}, "masks", "yes"),
        ({"pre_norm": True}, "transformer", "layer norm before each block"),
    ],
    ids=["coco", "r101", "undecided", "cut", "masks", "pre_norm"],
)
def test_inspection_of_native_checkpoints(sizes, key, expected):
    sizes = {"depth": 50} | sizes
    assert expected in lines(from_canonical(common_state(architecture(**sizes)), Format.NATIVE))[key]


def test_inspection_of_what_is_not_whole_says_so(plugin):
    part = {name: tensor for name, tensor in plugin.items() if "norm1" not in name}
    assert "tensors are missing" in lines(part)["complete"]
    more = plugin | {"detr.ema": torch.zeros(1)}
    assert "1 tensors that are not of DETR, as ema" in lines(more)["complete"]


# ---- metadata


def test_metadata_of_native_detrs_command_line_and_of_the_plugins_config():
    native = {"model": {}, "args": argparse.Namespace(nheads=4, dilation=True)}
    assert checkpoint_metadata(native) == Metadata(None, 4, True)
    config = "MODEL: {DETR: {NHEADS: 4}, RESNETS: {RES5_DILATION: 2}}"
    own = {"model": {}, "config": config, "label_map": SHAPES.to_dict()}
    assert checkpoint_metadata(own) == Metadata(SHAPES, 4, True, config=config)
    assert checkpoint_metadata(own | {"config": config.replace("2", "1")}).dilation is False
    assert checkpoint_metadata({"model": {}}) == Metadata()


@pytest.mark.parametrize("config", ["MODEL: {", "[1]", "MODEL: {DETR: {}}", "", "5"])
def test_a_config_that_is_none_is_refused(config):
    with pytest.raises(InputError, match="config of the checkpoint"):
        checkpoint_metadata({"model": {}, "config": config})
