"""Reading of JSON files with clear errors, and atomic writes."""

import contextlib
import errno
import gc
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from d2_detr.utils import files
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import atomic_write, read_json, remove_leftovers, write_json


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "file.json"


@pytest.fixture
def old(path):
    path.parent.mkdir()
    path.write_text("old")
    return path


@pytest.fixture
def umask():
    """Set the umask of this process, and restore it."""
    previous = os.umask(0)
    os.umask(previous)
    yield os.umask
    os.umask(previous)


def test_json_round_trip(path):
    value = {"boxes": [[1.5, -2.0]], "name": "Ballon é", "none": None}
    write_json(value, path)
    assert read_json(path) == value and read_json(str(path)) == value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"images": [1, 2', r"line 1 column 17"),
        (b"[1]\n]", r"line 2 column 1"),
        (b"", r"line 1 column 1"),
        (b'"\xe9"', "utf-8"),
    ],
    ids=["truncated", "too_long", "empty", "not_utf8"],
)
def test_broken_json_is_an_error_with_its_position(old, content, reason):
    old.write_bytes(content)
    with pytest.raises(InputError, match=reason) as error:
        read_json(old)
    assert str(old) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        read_json(tmp_path / "missing.json")
    assert str(error.value) == f"{tmp_path}/missing.json: no such file"


def test_reading_a_folder_is_an_error(tmp_path):
    with pytest.raises(InputError) as error:
        read_json(tmp_path)
    assert str(error.value) == f"{tmp_path}: a folder, expected a JSON file with annotations"


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_is_never_overwritten(tmp_path, overwrite):
    with pytest.raises(InputError, match="a folder, expected the name of a file to write"):
        write_json([], tmp_path, overwrite=overwrite)


def test_a_file_is_replaced_when_the_block_ends(old):
    with atomic_write(old) as temporary:
        temporary.write_text("new")
        assert old.read_text() == "old"
    assert old.read_text() == "new" and list(old.parent.iterdir()) == [old]


def test_exception_keeps_only_the_old_file(old):
    with pytest.raises(KeyboardInterrupt), atomic_write(old) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert old.read_text() == "old" and list(old.parent.iterdir()) == [old]


def test_unserializable_value_keeps_the_old_file(old):
    with pytest.raises(TypeError):
        write_json({"set": {1}}, old)
    assert old.read_text() == "old" and list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)], ids=oct)
def test_a_new_file_has_the_permissions_of_the_umask(path, umask, mask, mode):
    umask(mask)
    write_json([], path)
    assert path.stat().st_mode & 0o777 == mode and json.loads(path.read_text()) == []


def test_a_replaced_file_keeps_its_permissions(old):
    old.chmod(0o640)
    write_json([], old)
    assert old.stat().st_mode & 0o777 == 0o640


def test_writing_to_a_symbolic_link_replaces_its_target(old, tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(old)
    write_json([1], link)
    assert link.is_symlink() and read_json(old) == [1]


def test_other_content_is_overwritten_only_if_allowed(old):
    with pytest.raises(InputError, match=r"file\.json exists with other content; remove it first"):
        write_json([1], old, overwrite=False)
    assert old.read_text() == "old"
    write_json([1], old)
    write_json([1], old, overwrite=False)
    assert read_json(old) == [1]


@pytest.mark.parametrize("mode", [0o600, 0o444], ids=oct)
def test_the_temporary_file_is_not_more_open_than_the_old_one(old, umask, mode):
    umask(0o022)
    old.chmod(mode)
    with atomic_write(old) as temporary:
        assert temporary.stat().st_mode & 0o077 == mode & 0o077
        temporary.write_text("new")
    assert old.stat().st_mode & 0o777 == mode and old.read_text() == "new"


def test_a_file_is_on_the_disk_before_it_replaces_the_old_one(old, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_ino, old.read_text())))
    write_json([1], old)
    assert synced == [(old.stat().st_ino, "old")]


def test_an_error_in_writing_names_the_file_and_keeps_the_old_one(old):
    with pytest.raises(OSError) as error, atomic_write(old):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(old))
    assert str(old) in str(error.value) and "No space left" in str(error.value)
    assert old.read_text() == "old" and list(old.parent.iterdir()) == [old]


def test_an_error_about_another_file_is_left_as_it_is(old, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"), atomic_write(old):
        (tmp_path / "missing").read_text()


# ---- temporary files of a killed process


def killed_while_writing(path):
    """Start a process that is killed in atomic_write; return its temporary file."""
    code = f"""
import os, signal
from d2_detr.utils.files import atomic_write
with atomic_write({str(path)!r}) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    [temporary] = set(path.parent.iterdir()) - {path}
    return temporary


def test_the_file_of_a_killed_process_is_removed(old):
    temporary = killed_while_writing(old)
    assert temporary.name.startswith(".d2_detr_")
    assert remove_leftovers(old.parent) == [temporary]
    assert list(old.parent.iterdir()) == [old]


def test_the_file_of_a_running_process_stays(old):
    with atomic_write(old) as temporary:
        temporary.write_text("new")
        os.utime(temporary, (0, 0))
        assert remove_leftovers(old.parent) == []
    assert old.read_text() == "new"


@pytest.mark.parametrize(("hours", "stays"), [(23, True), (25, False)])
def test_the_file_of_another_machine_is_removed_after_a_day(old, monkeypatch, hours, stays):
    temporary = killed_while_writing(old)
    os.utime(temporary, (time.time() - hours * 3600,) * 2)
    monkeypatch.setattr(files, "_machine", lambda: "another")
    remove_leftovers(old.parent)
    assert temporary.exists() == stays


@pytest.mark.parametrize("name", ["model.pth.tmp", ".d2_detr_notes.tmp", ".d2_detr_a_1_zz.tmp"])
def test_files_of_others_are_never_removed(old, name):
    (old.parent / name).write_text("mine")
    assert remove_leftovers(old.parent) == [] and (old.parent / name).exists()


def test_a_missing_folder_has_no_leftovers(tmp_path):
    assert remove_leftovers(tmp_path / "missing") == []


# ---- what the fast parser refuses


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"[NaN, Infinity]", [float("nan"), float("inf")]),
        (b"1" + b"0" * 400, 10**400),
        (rb'"a\udc80.jpg"', "a\udc80.jpg"),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ('{"é": 1}'.encode("utf-16"), {"é": 1}),
    ],
    ids=["nan", "huge_integer", "lone_surrogate", "byte_order_mark", "utf_16"],
)
def test_everything_that_python_parses_is_accepted(path, text, value):
    path.parent.mkdir()
    path.write_bytes(text)
    assert repr(read_json(path)) == repr(value)


def test_parsing_leaves_the_garbage_collector_as_it_was(old):
    for set_state, enabled in ((gc.disable, False), (gc.enable, True)):
        set_state()
        for text in ("[1]", "[1"):
            old.write_text(text)
            with contextlib.suppress(InputError):
                read_json(old)
            assert gc.isenabled() == enabled
