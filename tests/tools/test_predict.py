"""Pictures and a checkpoint in, drawings and predictions.json out, at the command line."""

import contextlib
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO

from d2_detr import Predictor
from d2_detr.inference.folder import check_output, drawing_names, find_images
from d2_detr.utils.errors import InputError
from tests.engine.seeing import CLASSES, MASKS, PANOPTIC, save_seeing
from tests.shapes import draw_shapes
from tests.tools.command_line import run

CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data set of six and three pictures with annotations."""
    return draw_shapes(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_seeing(tmp_path_factory.mktemp("boxes"))[0]


def predict(folder, weights, *args):
    return run(folder, "predict.py", "--weights", weights, "--output", folder / "found", *CPU, *args)


def results(folder):
    return json.loads((folder / "found" / "predictions.json").read_text())


def files_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_becomes_drawings_and_results_which_coco_s_tools_read(root, tmp_path):
    weights, *_ = save_seeing(tmp_path, *MASKS)
    before = files_below(root)
    status, output = predict(tmp_path, weights, "--input", root / "val2017", "--threshold", "0.4", "--batch", "2")
    assert status == 0, output
    assert "100%" in output and "Traceback" not in output
    names = {path.name for path in (tmp_path / "found").iterdir()}
    assert names == {"predictions.json", "00001.jpg", "00002.jpg", "00003.jpg"}
    for name in names - {"predictions.json"}:
        with Image.open(tmp_path / "found" / name) as drawing:
            assert len(drawing.getcolors(1 << 24)) > 50, f"{name} is not blank"
    assert files_below(root) == before, "nothing is written into the input"

    found = results(tmp_path)
    assert {entry["image_id"] for entry in found} == {1, 2, 3} and min(entry["score"] for entry in found) >= 0.4
    assert {entry["file_name"] for entry in found} == {str(root / "val2017" / f"0000{i}.png") for i in (1, 2, 3)}
    named = dict(zip(CLASSES.ids, CLASSES.names, strict=True))
    assert len({entry["category_id"] for entry in found}) == 3
    assert all(entry["category_name"] == named[entry["category_id"]] for entry in found)
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(root / "annotations" / "custom_val.json").loadRes(str(tmp_path / "found" / "predictions.json"))
    assert len(loaded.anns) == len(found) and loaded.annToMask(loaded.anns[1]).shape == (64, 64)

    for name in CLASSES.names:
        entries = [entry for entry in found if entry["category_name"] == name]
        pictures = len({entry["image_id"] for entry in entries})
        assert re.search(rf"^{name} +{len(entries)} +{pictures}$", output, re.MULTILINE), output
    assert f"{len(found)} objects in 3 of 3 pictures" in output


def to_four_digits(scores):
    return [round(score, 4) for score in scores.tolist()]


def test_the_results_are_the_predictor_s(root, weights, tmp_path):
    status, output = predict(tmp_path, weights, "--input", root / "val2017" / "00002.png", "--no-pictures")
    assert status == 0, output
    found = Predictor(weights, threshold=0.7, device="cpu")(root / "val2017" / "00002.png")
    assert found.scores.size and [entry["score"] for entry in results(tmp_path)] == to_four_digits(found.scores)
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["predictions.json"]


def test_options_behind_the_others_override_the_config(root, weights, tmp_path):
    picture, opts = root / "val2017" / "00002.png", ("INPUT.MIN_SIZE_TEST", "32")
    status, output = predict(tmp_path, weights, "--input", picture, "--threshold", "0", "--no-pictures", *opts)
    assert status == 0, output
    scores = [entry["score"] for entry in results(tmp_path)]
    assert scores == to_four_digits(Predictor(weights, threshold=0, device="cpu", opts=opts)(picture).scores)
    assert scores != to_four_digits(Predictor(weights, threshold=0, device="cpu")(picture).scores)


def test_a_panoptic_model_writes_things_and_stuff(root, tmp_path):
    weights, *_ = save_seeing(tmp_path, *PANOPTIC)
    status, output = predict(tmp_path, weights, "--input", root / "val2017", "--threshold", "0")
    assert status == 0, output
    stuff = [entry for entry in results(tmp_path) if entry["category_name"] == "triangle"]
    assert stuff and len({entry["image_id"] for entry in stuff}) == len(stuff), "one segment a picture"


def test_a_picture_that_cannot_be_read_is_told_at_the_end_and_the_others_are_done(root, weights, tmp_path):
    folder = shutil.copytree(root / "train2017", tmp_path / "photos")
    for name in ("00002.png", "00003.png", "00004.png", "00005.png"):
        (folder / name).write_bytes(b"no picture")
    status, output = predict(tmp_path, weights, "--input", folder, "--threshold", "0.1")
    assert status == 1 and "Traceback" not in output
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: 4 of 6 pictures could not be read: ")
    assert last.count("not a picture") == 3 and "00002.png: not a picture" in last and last.endswith("; ...")
    assert "in 2 of 2 pictures" in output
    assert {entry["image_id"] for entry in results(tmp_path)} == {1, 6}
    assert {path.name for path in (tmp_path / "found").glob("*.jpg")} == {"00001.jpg", "00006.jpg"}


def test_where_nothing_is_found_the_summary_says_so(root, weights, tmp_path):
    status, output = predict(tmp_path, weights, "--input", root / "val2017", "--threshold", "1")
    assert status == 0 and "Nothing in 3 pictures has a score of 1 or more" in output
    assert results(tmp_path) == [] and len(list((tmp_path / "found").glob("*.jpg"))) == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--input", "gone.jpg"), "gone.jpg: no such file or folder"),
        (("--weights", "gone.pth"), "gone.pth: no such checkpoint"),
        (("--output", "PICTURES"), "pictures to be looked at lie in this folder"),
        (("--batch", "0"), "batch size 0: expected 1 or more"),
    ],
    ids=["input", "weights", "output", "batch"],
)
def test_a_mistake_is_one_clear_message_before_anything_is_written(root, weights, tmp_path, args, message):
    args = [root / "val2017" if arg == "PICTURES" else arg for arg in args]
    before = files_below(root)
    status, output = predict(tmp_path, weights, *(() if "--input" in args else ("--input", root / "val2017")), *args)
    assert status == 1 and "Traceback" not in output
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert files_below(root) == before and not (tmp_path / "found").exists()


# ---- which pictures, and what their drawings are called


@pytest.fixture
def photos(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "deep/b.jpg", "deep/deeper/b.png", "odd[1].jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["."], ["a.PNG", "b.jpg", "odd[1].jpg"]),
        (["*.jpg"], ["b.jpg", "odd[1].jpg"]),
        (["**/b.*"], ["b.jpg", "deep/b.jpg", "deep/deeper/b.png"]),
        (["b.jpg", ".", "a.PNG"], ["a.PNG", "b.jpg", "odd[1].jpg"]),
        (["odd[1].jpg"], ["odd[1].jpg"]),
        (["notes.txt"], ["notes.txt"]),
    ],
    ids=[
        "folder",
        "pattern",
        "recursive_pattern",
        "each_once",
        "a_file_that_looks_like_a_pattern",
        "whatever_is_named",
    ],
)
def test_pictures_are_found_sorted_and_each_once(photos, monkeypatch, names, expected):
    monkeypatch.chdir(photos)
    assert find_images(names) == list(map(Path, expected))


@pytest.mark.parametrize("name", ["*.gif", "empty", "gone.jpg"])
def test_a_name_of_no_picture_is_an_error(photos, monkeypatch, name):
    monkeypatch.chdir(photos)
    Path("empty").mkdir()
    with pytest.raises(InputError, match=re.escape(name)):
        find_images(["b.jpg", name])


def test_of_a_folder_of_folders_the_pattern_is_told_that_finds_its_pictures(photos, monkeypatch):
    monkeypatch.chdir(photos)
    for number, suffix in enumerate((".jpg", ".PNG")):
        (photos / "my [pics]" / str(number)).mkdir(parents=True)
        (photos / "my [pics]" / str(number) / f"a{suffix}").touch()
    with pytest.raises(InputError) as error:
        find_images(["my [pics]"])
    _, patterns = str(error.value).split("; give ")
    assert find_images(shlex.split(patterns)) == [Path("my [pics]/0/a.jpg"), Path("my [pics]/1/a.PNG")]


def test_drawings_have_the_names_of_their_pictures_and_never_share_one():
    paths = ["a/cat.jpg", "a/cat.png", "a/cat_2.jpg", "b/cat.jpg", "dog.v2.png"]
    names = ["cat.jpg", "cat_2.jpg", "cat_2_2.jpg", "cat_3.jpg", "dog.v2.jpg"]
    assert list(drawing_names(list(map(Path, paths))).values()) == names


def test_the_output_is_a_folder_without_pictures_of_the_input(photos):
    check_output(photos / "found", [photos / "b.jpg"])
    with pytest.raises(InputError, match="lie in this folder"):
        check_output(photos / "deep" / "..", [photos / "deep" / "b.jpg", photos / "b.jpg"])
    with pytest.raises(InputError, match="a file, expected a folder"):
        check_output(photos / "notes.txt", [photos / "b.jpg"])
