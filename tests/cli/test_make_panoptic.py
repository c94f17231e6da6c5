"""Output of tools/make_panoptic.py, run in this process to save the imports of a new one."""

import contextlib
import json
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

TOOL = Path(__file__).parents[2] / "tools" / "make_panoptic.py"


def write(path, *, sizes=True):
    """Write annotations of one image with a cat; return the path."""
    size = {"width": 12, "height": 8} if sizes else {}
    cat = {"id": 1, "image_id": 1, "category_id": 4, "bbox": [3, 2, 3, 3], "area": 9, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", **size}],
        "annotations": [cat | {"segmentation": [[3, 2, 6, 2, 6, 5, 3, 5]]}] if sizes else [],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the tool in this process; return stdout and stderr."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, args)])
        with contextlib.suppress(SystemExit):
            runpy.run_path(str(TOOL), run_name="__main__")
        printed = capsys.readouterr()
        return printed.out, printed.err.strip()

    return run


def test_segment_counts_of_every_file_are_printed(run, tmp_path):
    files = [write(tmp_path / f"{name}.json") for name in ("train", "val")]
    text, message = run(*files, "--background", "grass")
    assert not message
    assert text.splitlines() == [
        line
        for name in ("train", "val")
        for line in (
            f"{tmp_path / name}_panoptic.json: 1 images",
            "  'cat' (things): 1 segments",
            "  'dog' (things): 0 segments",
            "  'grass' (stuff): 1 segments",
        )
    ]


def test_missing_file_is_one_error_message(run, tmp_path):
    _, message = run(tmp_path / "nothing.json")
    assert message == f"error: {tmp_path / 'nothing.json'}: no such file"


def test_missing_sizes_are_read_from_the_images_folder(run, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (5, 3)).save(tmp_path / "images" / "a.jpg")
    path = write(tmp_path / "mine.json", sizes=False)
    assert "--images" in run(path)[1]
    text, message = run(path, "--images", tmp_path / "images")
    assert not message and "1 images" in text
