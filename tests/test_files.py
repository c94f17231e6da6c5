"""Files are read with one clear message, and written whole or not at all."""

import json

import pytest

from d2_detr.utils.errors import InputError
from d2_detr.utils.files import atomic_write, read_json, write_json


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "file.json"


@pytest.fixture
def old(path):
    path.parent.mkdir()
    path.write_text("old")
    return path


def test_what_is_written_is_read(path):
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
    ids=["cut_short", "too_long", "empty", "not_utf8"],
)
def test_what_is_not_json_is_an_error_that_says_where(old, content, reason):
    old.write_bytes(content)
    with pytest.raises(InputError, match=reason) as error:
        read_json(old)
    assert str(old) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        read_json(tmp_path / "missing.json")
    assert str(error.value) == f"{tmp_path}/missing.json: no such file"


def test_a_folder_in_place_of_a_file_is_told(tmp_path):
    with pytest.raises(InputError) as error:
        read_json(tmp_path)
    assert str(error.value) == f"{tmp_path}: a folder, expected the JSON file with the annotations"


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_is_not_written_over(tmp_path, overwrite):
    with pytest.raises(InputError, match="a folder, expected the name of a file to write"):
        write_json([], tmp_path, overwrite=overwrite)


def test_replacing_takes_the_place_only_when_the_block_ends(old):
    with atomic_write(old) as temporary:
        temporary.write_text("new")
        assert old.read_text() == "old"
    assert old.read_text() == "new" and list(old.parent.iterdir()) == [old]


def test_an_exception_while_replacing_leaves_the_old_content_and_no_other_file(old):
    with pytest.raises(KeyboardInterrupt), atomic_write(old) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert old.read_text() == "old" and list(old.parent.iterdir()) == [old]


def test_a_value_that_json_lacks_leaves_the_old_content_and_no_other_file(old):
    with pytest.raises(TypeError):
        write_json({"set": {1}}, old)
    assert old.read_text() == "old" and list(old.parent.iterdir()) == [old]


def test_a_new_file_can_be_read_by_others(path):
    write_json([], path)
    assert path.stat().st_mode & 0o777 == 0o644 and json.loads(path.read_text()) == []


def test_a_file_with_other_content_is_only_overwritten_when_that_is_allowed(old):
    with pytest.raises(InputError, match=r"file\.json is there already, with other content; remove it"):
        write_json([1], old, overwrite=False)
    assert old.read_text() == "old"
    write_json([1], old)
    write_json([1], old, overwrite=False)
    assert read_json(old) == [1]
