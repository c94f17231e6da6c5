"""Output and errors of tools/via_to_coco.py, run in this process to save the imports of a new one."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from d2_detr.config.keys import CUSTOM_TRAIN, CUSTOM_VAL
from d2_detr.data.datasets.balloon import annotation_file
from d2_detr.data.formats.coco import read_coco
from d2_detr.data.formats.via import VIA_FILE

TOOL = Path(__file__).parents[2] / "tools" / "via_to_coco.py"


def region(kind="cat", **fields):
    shape = {"name": "rect", "x": 2, "y": 3, "width": 10, "height": 5, **fields}
    return {"shape_attributes": shape, "region_attributes": {"kind": kind}}


def write_images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (32, 24)).save(folder / name)


def write_via(path, **regions):
    """Write a VIA 2 file; keywords are names of PNG files, without suffix, and values their regions."""
    entries = {f"{name}.png7": {"filename": f"{name}.png", "size": 7, "regions": r} for name, r in regions.items()}
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture
def via_file(tmp_path):
    """A VIA file with three images beside it."""
    write_images(tmp_path, "a.png", "b.png", "c.png")
    circle = {"shape_attributes": {"name": "circle", "cx": 9, "cy": 9, "r": 4}, "region_attributes": {"kind": "owl"}}
    return write_via(tmp_path / "via.json", a=[region(), circle], b=[region()], c=[])


@pytest.fixture
def convert(monkeypatch, capsys):
    """Run the tool; return exit status, stdout and stderr."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, args)])
        status = 0
        try:
            runpy.run_path(str(TOOL), run_name="__main__")
        except SystemExit as end:
            status = end.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err.strip()

    return run


def test_tool_writes_the_file_and_prints_class_counts(convert, via_file, tmp_path):
    output = tmp_path / "annotations" / "custom_train.json"
    args = ("--class-attribute", "kind", "--classes", "owl,dog,cat")
    status, text, _ = convert(via_file, "--output", output, *args)
    assert status == 0
    assert text.splitlines() == [
        f"{output}: 3 images, 1 of them without regions",
        "  owl: 1 regions",
        "  dog: 0 regions",
        "  cat: 2 regions",
    ]
    coco = json.loads(output.read_text())
    assert [(c["id"], c["name"]) for c in coco["categories"]] == [(1, "owl"), (2, "dog"), (3, "cat")]
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "b.png", "c.png"]
    assert [a["category_id"] for a in coco["annotations"]] == [3, 1, 3]
    assert coco["annotations"][0]["bbox"] == [2, 3, 10, 5]


def test_help_shows_the_layout_of_a_custom_dataset(convert):
    status, text, _ = convert("--help")
    assert status == 0
    assert all(
        name in text
        for name in (f"annotations/{CUSTOM_TRAIN}.json", f"annotations/{CUSTOM_VAL}.json", "train2017", "val2017")
    )


def test_images_may_be_in_another_folder(convert, via_file, tmp_path):
    folder = tmp_path / "coco" / "train2017"
    folder.mkdir(parents=True)
    for path in tmp_path.glob("*.png"):
        path.rename(folder / path.name)
    output = tmp_path / "coco.json"
    assert convert(via_file, "--images", folder, "--output", output, "--class-name", "thing")[0] == 0
    coco = read_coco(output, folder)
    assert (len(coco.images), len(coco.annotations)) == (3, 3)


def test_output_equals_the_balloon_annotation_file(convert, drawn_balloons, tmp_path):
    output = tmp_path / "balloon.json"
    status, text, _ = convert(drawn_balloons / "val" / VIA_FILE, "--output", output, "--class-name", "balloon")
    assert status == 0 and text.startswith(f"{output}: 4 images, 0 of them without regions\n  balloon: ")
    assert output.read_text() == annotation_file(drawn_balloons, "val").read_text()


def test_another_file_is_replaced_only_with_overwrite(convert, via_file, tmp_path):
    output = tmp_path / "coco.json"
    args = (via_file, "--output", output)
    assert convert(*args, "--class-name", "cat")[0] == 0
    first = output.read_text()
    assert convert(*args, "--class-name", "cat")[0] == 0, "identical content"
    status, text, message = convert(*args, "--class-name", "dog")
    assert (status, text) == (1, "") and str(output) in message and "--overwrite replaces it" in message
    assert output.read_text() == first
    assert convert(*args, "--class-name", "dog", "--overwrite")[0] == 0
    assert json.loads(output.read_text())["categories"] == [{"id": 1, "name": "dog"}]


def test_the_via_file_is_never_overwritten(convert, via_file):
    before = via_file.read_text()
    status, _, message = convert(via_file, "--output", via_file, "--class-name", "cat", "--overwrite")
    assert status == 1 and str(via_file) in message and via_file.read_text() == before


@pytest.mark.parametrize(
    ("damage", "args", "parts"),
    [
        (lambda via: via.with_name("b.png").unlink(), "--class-name cat", ["b.png: no such image", "--images"]),
        (lambda via: via.with_name("b.png").write_text("no"), "--class-name cat", ["b.png: not an image"]),
        (lambda via: via.unlink(), "--class-name cat", ["via.json: no such file"]),
        (lambda via: via.write_text("filename,size"), "--class-name cat", ["via.json: not a complete JSON file"]),
        (lambda via: write_via(via, a=[region(width=0)]), "--class-name cat", ["a.png: region 0: width is 0"]),
        (lambda via: write_via(via, a=[region(x=40)]), "--class-name cat", ["a.png: region 0: ", "32 x 24"]),
        (lambda via: write_via(via, a=[region(kind="")]), "--class-attribute kind", ["a.png: region 0: ", "is empty"]),
        (lambda via: None, "--class-attribute kind --classes cat,dog", ["a.png: region 1: 'owl'", "'cat', 'dog'"]),
        (lambda via: None, "--class-name cat --classes=", ["the classes ''"]),
        (lambda via: None, "", ["--class-name", "--class-attribute", "'kind'"]),
    ],
    ids=[
        "no_image", "no_image_file", "no_via_file", "csv", "degenerate", "outside", "no_class", "other_class",
        "empty_classes", "no_choice",
    ],
)  # fmt: skip
def test_mistake_is_one_message_and_writes_nothing(convert, via_file, tmp_path, damage, args, parts):
    damage(via_file)
    output = tmp_path / "out" / "coco.json"
    status, text, message = convert(via_file, "--output", output, *args.split())
    assert (status, text) == (1, "")
    assert message.startswith("error: ") and "\n" not in message
    assert all(part in message for part in parts), message
    assert not output.parent.exists()


def test_class_name_and_attribute_exclude_each_other(convert, via_file, tmp_path):
    output = tmp_path / "coco.json"
    args = ("--class-name", "cat", "--class-attribute", "kind")
    assert convert(via_file, "--output", output, *args)[0] == 2 and not output.exists()
