"""tools/via_to_coco.py: what it writes, says and refuses; run in this process, to save the imports of a new one."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from d2_detr.data.datasets.balloon import VIA_FILE, annotation_file
from d2_detr.data.datasets.custom import FOLDERS, TRAIN, VAL
from d2_detr.data.formats.coco import read_coco

TOOL = Path(__file__).parents[2] / "tools" / "via_to_coco.py"


def region(kind="cat", **fields):
    shape = {"name": "rect", "x": 2, "y": 3, "width": 10, "height": 5, **fields}
    return {"shape_attributes": shape, "region_attributes": {"kind": kind}}


def write_pictures(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (32, 24)).save(folder / name)


def write_via(path, **regions):
    """Write a file of VIA 2; a keyword is the name of a PNG file, its value are the regions."""
    entries = {f"{name}.png7": {"filename": f"{name}.png", "size": 7, "regions": r} for name, r in regions.items()}
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture
def via_file(tmp_path):
    """A VIA file with three pictures beside it."""
    write_pictures(tmp_path, "a.png", "b.png", "c.png")
    circle = {"shape_attributes": {"name": "circle", "cx": 9, "cy": 9, "r": 4}, "region_attributes": {"kind": "owl"}}
    return write_via(tmp_path / "via.json", a=[region(), circle], b=[region()], c=[])


@pytest.fixture
def convert(monkeypatch, capsys):
    """Run the tool; its exit status, what it printed, and the message it ended with."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, args)])
        status, message = 0, ""
        try:
            runpy.run_path(str(TOOL), run_name="__main__")
        except SystemExit as end:
            status, message = (1, end.code) if isinstance(end.code, str) else (end.code, "")
        return status, capsys.readouterr().out, message

    return run


def test_the_tool_writes_the_file_and_prints_the_account(convert, via_file, tmp_path):
    output = tmp_path / "annotations" / "custom_train.json"
    args = ("--class-attribute", "kind", "--classes", "owl,dog,cat")
    status, text, _ = convert(via_file, "--output", output, *args)
    assert status == 0
    assert text.splitlines() == [
        f"{output}: 3 pictures, 1 of them without regions",
        "  regions of owl: 1",
        "  regions of dog: 0",
        "  regions of cat: 2",
    ]
    coco = json.loads(output.read_text())
    assert [(c["id"], c["name"]) for c in coco["categories"]] == [(1, "owl"), (2, "dog"), (3, "cat")]
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "b.png", "c.png"]
    assert [a["category_id"] for a in coco["annotations"]] == [3, 1, 3]
    assert coco["annotations"][0]["bbox"] == [2, 3, 10, 5]


def test_help_shows_the_layout_of_a_dataset_of_one_s_own(convert):
    status, text, _ = convert("--help")
    assert status == 0
    assert all(name in text for name in (f"annotations/{TRAIN}.json", f"annotations/{VAL}.json", *FOLDERS.values()))


def test_pictures_may_lie_elsewhere(convert, via_file, tmp_path):
    folder = tmp_path / "coco" / FOLDERS[TRAIN]
    folder.mkdir(parents=True)
    for path in tmp_path.glob("*.png"):
        path.rename(folder / path.name)
    output = tmp_path / "coco.json"
    assert convert(via_file, "--pictures", folder, "--output", output, "--class-name", "thing")[0] == 0
    coco = read_coco(output, folder)
    assert (len(coco.images), len(coco.annotations)) == (3, 3)


def test_drawn_balloons_come_out_as_of_the_balloon_dataset(convert, drawn_balloons, tmp_path):
    output = tmp_path / "balloon.json"
    status, text, _ = convert(drawn_balloons / "val" / VIA_FILE, "--output", output, "--class-name", "balloon")
    assert status == 0 and text.startswith(f"{output}: 4 pictures, 0 of them without regions\n  regions of balloon: ")
    assert output.read_text() == annotation_file(drawn_balloons, "val").read_text()


def test_another_file_is_replaced_only_with_overwrite(convert, via_file, tmp_path):
    output = tmp_path / "coco.json"
    args = (via_file, "--output", output)
    assert convert(*args, "--class-name", "cat")[0] == 0
    first = output.read_text()
    assert convert(*args, "--class-name", "cat")[0] == 0, "the same again"
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
        (lambda via: via.with_name("b.png").unlink(), "--class-name cat", ["b.png: named in", "--pictures"]),
        (lambda via: via.with_name("b.png").write_text("no"), "--class-name cat", ["b.png: not a picture"]),
        (lambda via: via.unlink(), "--class-name cat", ["via.json: no such file"]),
        (lambda via: via.write_text("filename,size"), "--class-name cat", ["via.json: not a complete JSON file"]),
        (lambda via: write_via(via, a=[region(width=0)]), "--class-name cat", ["a.png: region 0: width is 0"]),
        (lambda via: write_via(via, a=[region(x=40)]), "--class-name cat", ["a.png: region 0: ", "32 x 24"]),
        (lambda via: write_via(via, a=[region(kind="")]), "--class-attribute kind", ["a.png: region 0: ", "is empty"]),
        (lambda via: None, "--class-attribute kind --classes cat,dog", ["a.png: region 1: 'owl'", "'cat', 'dog'"]),
        (lambda via: None, "--class-name cat --classes=", ["the classes are ''"]),
        (lambda via: None, "", ["--class-name", "--class-attribute", "'kind'"]),
    ],
    ids=[
        "no_picture", "no_picture_file", "no_via_file", "csv", "degenerate", "outside", "no_class", "other_class",
        "empty_classes", "no_choice",
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_message_and_nothing_is_written(convert, via_file, tmp_path, damage, args, parts):
    damage(via_file)
    output = tmp_path / "out" / "coco.json"
    status, text, message = convert(via_file, "--output", output, *args.split())
    assert (status, text) == (1, "")
    assert message.startswith("error: ") and "\n" not in message
    assert all(part in message for part in parts), message
    assert not output.parent.exists()


def test_both_a_name_and_an_attribute_are_refused_by_the_parser(convert, via_file, tmp_path):
    output = tmp_path / "coco.json"
    args = ("--class-name", "cat", "--class-attribute", "kind")
    assert convert(via_file, "--output", output, *args)[0] == 2 and not output.exists()
