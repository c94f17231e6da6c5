"""Reading of checkpoint files, none of which can run code."""

import argparse
import pickle

import pytest
import torch
from safetensors.torch import save_file

from d2_detr.checkpoint.metadata import Metadata
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.utils.errors import InputError

STATE_DICT = {"query_embed.weight": torch.arange(6.0).view(2, 3), "class_embed.bias": torch.tensor([1, 2])}


def assert_is_the_state_dict(state_dict):
    assert set(state_dict) == set(STATE_DICT)
    assert all(torch.equal(state_dict[name], tensor) for name, tensor in STATE_DICT.items())


# ---- formats


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_native_checkpoint_with_its_arguments_is_read(tmp_path, zipped):
    args = argparse.Namespace(lr=1e-4, masks=False, dataset_file="coco")
    checkpoint = {"model": STATE_DICT, "epoch": 299, "args": args}
    torch.save(checkpoint, tmp_path / "detr.pth", _use_new_zipfile_serialization=zipped)
    read = read_checkpoint(tmp_path / "detr.pth")
    assert_is_the_state_dict(read.state_dict)
    assert read.extra["epoch"] == 299 and read.extra["args"] == args


def test_bare_state_dict_is_the_model(tmp_path):
    torch.save(STATE_DICT, tmp_path / "resnet.pth")
    read = read_checkpoint(str(tmp_path / "resnet.pth"))
    assert read.extra == {} and read.metadata == Metadata()
    assert_is_the_state_dict(read.state_dict)


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize(
    "other_tensors", [{}, {"criterion.empty_weight": torch.ones(3)}], ids=["model", "with_criterion"]
)
def test_lightning_checkpoint_is_read(tmp_path, prefix, other_tensors):
    state_dict = {f"{prefix}{name}": weight for name, weight in STATE_DICT.items()} | other_tensors
    torch.save({"state_dict": state_dict, "epoch": 3, "pytorch-lightning_version": "2.4.0"}, tmp_path / "last.ckpt")
    assert_is_the_state_dict(read_checkpoint(tmp_path / "last.ckpt").state_dict)


def test_safetensors_are_read(tmp_path):
    save_file(STATE_DICT, tmp_path / "detr.safetensors")
    read = read_checkpoint(tmp_path / "detr.safetensors")
    assert read.extra == {} and read.metadata == Metadata()
    assert_is_the_state_dict(read.state_dict)


# ---- files that would run code


class Hostile:
    """Opens the marker file for writing when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def write_zip(content, path):
    torch.save(content, path)


def write_legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_pickle(content, path, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol))


def write_pickle_4(content, path):
    write_pickle(content, path, protocol=4)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("write", [write_zip, write_legacy, write_pickle, write_pickle_4])
@pytest.mark.parametrize("name", ["detr.pth", "detr.bin", "detr.pkl", "detr.safetensors"])
def test_hostile_file_is_refused_and_runs_no_code(tmp_path, marker, write, name):
    path = tmp_path / name
    write({"model": STATE_DICT, "args": Hostile(marker)}, path)
    with pytest.raises(InputError) as error:
        read_checkpoint(path)
    assert not marker.exists()
    assert str(error.value).startswith(f"{path}: ")
    assert "weights_only" not in str(error.value), "no advice to load it without protection"


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_pickle])
def test_message_about_a_hostile_file_names_its_code(tmp_path, marker, write):
    write({"args": Hostile(marker)}, tmp_path / "detr.pth")
    with pytest.raises(InputError, match=r"contains (_?io|builtins)\.open, which could run code"):
        read_checkpoint(tmp_path / "detr.pth")


def test_hostile_file_runs_code_if_loaded_unprotected(tmp_path, marker):
    write_zip(Hostile(marker), tmp_path / "detr.pth")
    torch.load(tmp_path / "detr.pth", weights_only=False).close()
    assert marker.exists()


# ---- errors


def truncate(path, fraction):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_file_is_refused_by_name(tmp_path, kind, fraction):
    path = tmp_path / ("detr.safetensors" if kind == "safetensors" else "detr.pth")
    {"zip": write_zip, "legacy": write_legacy, "safetensors": save_file}[kind](STATE_DICT, path)
    truncate(path, fraction)
    with pytest.raises(InputError, match="truncated") as error:
        read_checkpoint(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 166\n",
        b"<!DOCTYPE html><html></html>",
        b'{"message": "Not Found"}',
        b"hello world",
        b"aello world",
        b"\x00" * 300,
        b"\x80\x02" + b"\xff" * 300,
        b"PK\x03\x04" + b"\x00" * 300,
    ],
    ids=["lfs_pointer", "html", "json", "text_h", "text_a", "zeros", "broken_pickle", "broken_zip"],
)
@pytest.mark.parametrize("name", ["detr.pth", "detr.safetensors"])
def test_other_file_is_refused_by_name(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_checkpoint(path)
    assert str(error.value).startswith(f"{path}: not a checkpoint") and "weights_only" not in str(error.value)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), 5], ids=["list", "tensor", "number"])
def test_content_other_than_a_dict_is_refused_by_type(tmp_path, content):
    torch.save(content, tmp_path / "detr.pth")
    with pytest.raises(InputError, match=rf"detr\.pth: holds a {type(content).__name__}, not a checkpoint"):
        read_checkpoint(tmp_path / "detr.pth")


@pytest.mark.parametrize("name", ["missing.pth", "missing.safetensors", "missing.pkl"])
def test_missing_file_is_named(tmp_path, name):
    with pytest.raises(FileNotFoundError) as error:
        read_checkpoint(tmp_path / name)
    assert str(error.value) == f"{tmp_path / name}: no such checkpoint"


def test_pickle_is_refused_unread_with_the_remedy(tmp_path):
    (tmp_path / "R-50.pkl").write_bytes(b"not even a pickle")
    with pytest.raises(InputError, match=r"R-50\.pkl: a pickle can run code.*\.pth or \.safetensors"):
        read_checkpoint(tmp_path / "R-50.pkl")


def test_state_dict_entry_other_than_a_tensor_is_named(tmp_path):
    torch.save({"model": {"a": torch.zeros(1), "b": [1, 2]}}, tmp_path / "detr.pth")
    with pytest.raises(InputError, match=r"detr\.pth: b of the state dict is a list"):
        read_checkpoint(tmp_path / "detr.pth")
