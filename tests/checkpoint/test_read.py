"""Reading of checkpoint files, none of which can run code."""

import argparse
import io
import pickle
import tarfile
import zipfile

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


@pytest.mark.parametrize("name", ["detr.pth", "detr.tar", "detr.bin"])
def test_tar_files_of_old_torch_are_refused_unpacked(tmp_path, marker, name):
    path = tmp_path / name
    with tarfile.open(path, "w") as file:
        for member in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(Hostile(marker), 2)
            info = tarfile.TarInfo(member)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    with pytest.raises(InputError, match=rf"{name}: not a checkpoint"):
        read_checkpoint(path)
    assert not marker.exists()


def test_a_checkpoint_in_a_zip_file_is_refused_unpacked(tmp_path, marker):
    write_zip(Hostile(marker), tmp_path / "inner.pth")
    with zipfile.ZipFile(tmp_path / "outer.pth", "w") as file:
        file.write(tmp_path / "inner.pth", "archive/inner.pth")
    with pytest.raises(InputError, match=r"outer\.pth: not a checkpoint"):
        read_checkpoint(tmp_path / "outer.pth")
    assert not marker.exists()


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_code_in_the_optimizer_state_is_refused(tmp_path, marker, write):
    write({"model": STATE_DICT, "optimizer": {"state": [Hostile(marker)]}}, tmp_path / "model_final.pth")
    with pytest.raises(InputError, match="could run code"):
        read_checkpoint(tmp_path / "model_final.pth")
    assert not marker.exists()


# ---- files that would fill the memory


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def claimed(num_elements, device="cpu"):
    """A tensor of many elements which has memory for one, or none."""
    return torch.zeros((), device=device).expand(num_elements)


# Copies a tensor without a check; torch 2.4 has only the second name.
COPY = getattr(torch._utils, "_rebuild_device_tensor_from_cpu_tensor", torch._utils._rebuild_device_tensor_from_numpy)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"a": claimed(10**12)}, r"1,000,000,000,000 elements, expected at most 500,000,000"),
        ({f"a{i}": claimed(10**8) for i in range(6)}, r"600,000,000 elements"),
        ({"a": claimed(10**6, "meta")}, "contains torch._utils._rebuild_meta_tensor_no_storage"),
        ({"a": torch.zeros(3).to_sparse()}, "contains torch._utils._rebuild_sparse_tensor"),
        ({"a": Call(bytearray, 10**12)}, "contains __builtin__.bytearray"),
        ({"a": Call(COPY, claimed(10**12), torch.float64, "cpu", False)}, f"contains torch._utils.{COPY.__name__}"),
        ([[] for _ in range(1_000_000)], "its pickle has more than 1,000,000 operations"),
    ],
    ids=["strides_0", "many", "meta", "sparse", "bytearray", "copy", "lists"],
)  # fmt: skip
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_a_small_file_cannot_fill_the_memory(tmp_path, write, content, reason):
    write(content, tmp_path / "detr.pth")
    with pytest.raises(InputError, match=reason) as error:
        read_checkpoint(tmp_path / "detr.pth")
    assert str(error.value).startswith(f"{tmp_path}/detr.pth: ")


def repacked(path, method=zipfile.ZIP_STORED, change=lambda name, data: data):
    """Rewrite the members of a zip file with another compression or other content, and checksums that match."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, change(name, data))


def test_a_large_description_of_the_tensors_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("d2_detr.checkpoint.file_checks.MAX_HEADER_BYTES", 100)
    write_zip(STATE_DICT, tmp_path / "detr.pth")
    save_file(STATE_DICT, tmp_path / "detr.safetensors")
    for name, reason in (("detr.pth", r"data\.pkl is larger than 100 bytes"), ("detr.safetensors", "header has")):
        with pytest.raises(InputError, match=reason):
            read_checkpoint(tmp_path / name)


def test_a_zip_file_of_too_many_members_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("d2_detr.utils.archives.MAX_MEMBERS", 2)
    write_zip(STATE_DICT, tmp_path / "detr.pth")
    with pytest.raises(InputError, match="files in the archive, expected at most 2"):
        read_checkpoint(tmp_path / "detr.pth")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_zip_file_is_refused_unpacked(tmp_path, method):
    path = tmp_path / "detr.pth"
    write_zip({"a": torch.zeros(1_000_000)}, path)
    repacked(path, method)
    assert path.stat().st_size < 50_000
    with pytest.raises(InputError, match=r"detr\.pth: not a checkpoint.*in the archive is not stored"):
        read_checkpoint(path)


def test_an_encrypted_zip_file_is_refused(tmp_path):
    write_zip(STATE_DICT, tmp_path / "detr.pth")
    content = (tmp_path / "detr.pth").read_bytes()
    flags = content.index(b"PK\x01\x02") + 8  # of the first member in the directory
    (tmp_path / "detr.pth").write_bytes(content[:flags] + b"\x01" + content[flags + 1 :])
    with pytest.raises(InputError, match="is encrypted"):
        read_checkpoint(tmp_path / "detr.pth")


@pytest.mark.parametrize("claimed", [b"M\xff\xff", b"M\xc9\x00", b"J\xff\xff\xff\xff"], ids=["65535", "201", "-1"])
def test_a_tensor_is_not_read_beyond_its_data(tmp_path, claimed):
    path = tmp_path / "detr.pth"
    write_zip({"a": torch.arange(200.0)}, path)
    size = b"K" + bytes([200])  # of the storage and the tensor
    repacked(path, change=lambda name, data: data.replace(size, claimed) if name.endswith("data.pkl") else data)
    with pytest.raises(InputError, match="not a checkpoint, or truncated.*storage 0 has 800 bytes, expected"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "changed",
    [
        (b"storage", b"storagE"),
        (b"FloatStorage", b"NorthStorage"),
        (b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x00x"),
        (b"K\xc8t", b"K\xc8K\xc8t"),
    ],
    ids=["word", "type", "key", "tuple"],
)
def test_a_reference_to_a_storage_is_as_torch_writes_it(tmp_path, changed):
    path = tmp_path / "detr.pth"
    write_zip({"a": torch.arange(200.0)}, path)
    repacked(path, change=lambda name, data: data.replace(*changed) if name.endswith("data.pkl") else data)
    with pytest.raises(InputError, match="not a checkpoint, or truncated"):
        read_checkpoint(path)


def test_shared_and_differently_typed_storages_are_read(tmp_path):
    base = torch.arange(6.0)
    written = {"a": base, "b": base[2:5], "c": torch.tensor(3), "d": torch.zeros(0)}
    written |= {
        str(dtype): base.to(dtype) for dtype in (torch.half, torch.bfloat16, torch.double, torch.uint8, torch.bool)
    }
    write_zip(written, tmp_path / "detr.pth")
    read = read_checkpoint(tmp_path / "detr.pth").state_dict
    assert all(torch.equal(read[name], tensor) for name, tensor in written.items())


# ---- damaged files


def test_a_changed_bit_in_a_zip_file_is_found(tmp_path):
    write_zip({"a": torch.arange(1000.0)}, tmp_path / "detr.pth")
    content = bytearray((tmp_path / "detr.pth").read_bytes())
    content[content.index(torch.arange(500.0, 510).numpy().tobytes())] ^= 1
    (tmp_path / "detr.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"data/0 does not match its checksum"):
        read_checkpoint(tmp_path / "detr.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_tensor_that_is_not_finite_is_named(tmp_path, value, dtype):
    weights = {"first": torch.zeros(3, dtype=dtype), "second": torch.tensor([1, value, 2], dtype=dtype)}
    write_zip({"model": weights}, tmp_path / "detr.pth")
    with pytest.raises(InputError, match=r"detr\.pth: second has values that are not finite"):
        read_checkpoint(tmp_path / "detr.pth")


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


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e5m2])
def test_a_tensor_of_another_type_is_named(tmp_path, dtype):
    torch.save({"model": {"a": torch.zeros(1, dtype=dtype)}}, tmp_path / "detr.pth")
    with pytest.raises(InputError, match=rf"detr\.pth: a has the type {dtype}; save the weights as torch\.float32"):
        read_checkpoint(tmp_path / "detr.pth")


def test_a_name_that_is_not_text_is_shown(tmp_path):
    torch.save({"model": {7: torch.zeros(1)}}, tmp_path / "detr.pth")
    with pytest.raises(InputError, match=r"detr\.pth: the state dict has the name 7, expected text"):
        read_checkpoint(tmp_path / "detr.pth")


@pytest.mark.parametrize("name", ["detr.pth", "detr"])
@pytest.mark.parametrize("save", [torch.save, save_file], ids=["torch", "safetensors"])
def test_the_content_decides_how_a_file_is_read(tmp_path, name, save):
    save(STATE_DICT, tmp_path / name)
    assert_is_the_state_dict(read_checkpoint(tmp_path / name).state_dict)


def test_state_dict_entry_other_than_a_tensor_is_named(tmp_path):
    torch.save({"model": {"a": torch.zeros(1), "b": [1, 2]}}, tmp_path / "detr.pth")
    with pytest.raises(InputError, match=r"detr\.pth: b of the state dict is a list"):
        read_checkpoint(tmp_path / "detr.pth")
