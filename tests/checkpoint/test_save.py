"""Saving of checkpoints, also where the disk is full."""

import errno
import subprocess
import sys

import pytest
import torch

from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.checkpoint.save import save_safetensors, save_torch

WRITERS = {".pth": save_torch, ".safetensors": lambda content, path: save_safetensors(content["model"], path, {})}
# The limit on the size of files stands for a full disk.
FILL_DISK = """
import resource, signal, sys, torch
from tests.checkpoint.test_save import WRITERS
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
path = sys.argv[1]
try:
    WRITERS[path[path.rindex("."):]]({"model": {"a": torch.zeros(1_000_000)}}, path)
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_saved_checkpoint_is_read_back(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    WRITERS[suffix]({"model": {"a": torch.arange(3.0)}}, path)
    assert torch.equal(read_checkpoint(path).state_dict["a"], torch.arange(3.0))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", FILL_DISK, str(path)], capture_output=True, text=True, check=True)
    assert str(path) in done.stdout and "File too large" in done.stdout and "\n" not in done.stdout.strip()
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_read_only_folder_is_an_error_with_its_file(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"model{suffix}"

    def refuse(*args):
        raise OSError(errno.EROFS, "Read-only file system", args[0])

    monkeypatch.setattr("d2_detr.utils.files.os.open", refuse)
    with pytest.raises(OSError, match="Read-only file system") as error:
        WRITERS[suffix]({"model": {"a": torch.zeros(1)}}, path)
    assert error.value.filename == str(path)
