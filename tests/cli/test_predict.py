"""The predict command turns images and a checkpoint into drawings and predictions.json."""

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
from d2_detr.data.images import find_images
from d2_detr.inference.folder import check_output, predict_files, unique_stems
from d2_detr.utils.errors import InputError
from tests.cli.processes import run
from tests.inference.untrained import CLASSES, MASKS, PANOPTIC, save_untrained
from tests.shapes import draw_shapes

CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A dataset of six training and three validation images."""
    return draw_shapes(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("boxes"))[0]


def predict(folder, weights, *args):
    return run(folder, "predict.py", "--weights", weights, "--output", folder / "out", *CPU, *args)


def results(folder):
    return json.loads((folder / "out" / "predictions.json").read_text())


def files_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_folder_gives_drawings_and_results_for_pycocotools(root, tmp_path):
    weights, *_ = save_untrained(tmp_path, *MASKS)
    before = files_below(root)
    status, output = predict(tmp_path, weights, "--input", root / "val2017", "--threshold", "0.4", "--batch", "2")
    assert status == 0, output
    assert "100%" in output and "Traceback" not in output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"predictions.json", "00001.jpg", "00002.jpg", "00003.jpg"}
    for name in names - {"predictions.json"}:
        with Image.open(tmp_path / "out" / name) as drawing:
            assert len(drawing.getcolors(1 << 24)) > 50, f"{name} is not blank"
    assert files_below(root) == before, "nothing is written into the input"

    predictions = results(tmp_path)
    assert {entry["image_id"] for entry in predictions} == {1, 2, 3} and min(
        entry["score"] for entry in predictions
    ) >= 0.4
    assert {entry["file_name"] for entry in predictions} == {str(root / "val2017" / f"0000{i}.png") for i in (1, 2, 3)}
    named = dict(zip(CLASSES.ids, CLASSES.names, strict=True))
    assert len({entry["category_id"] for entry in predictions}) == 3
    assert all(entry["category_name"] == named[entry["category_id"]] for entry in predictions)
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(root / "annotations" / "custom_val.json").loadRes(str(tmp_path / "out" / "predictions.json"))
    assert len(loaded.anns) == len(predictions) and loaded.annToMask(loaded.anns[1]).shape == (64, 64)

    for name in CLASSES.names:
        entries = [entry for entry in predictions if entry["category_name"] == name]
        num_images = len({entry["image_id"] for entry in entries})
        assert re.search(rf"^{name} +{len(entries)} +{num_images}$", output, re.MULTILINE), output
    assert f"{len(predictions)} objects in 3 of 3 images" in output


def to_four_digits(scores):
    return [round(score, 4) for score in scores.tolist()]


def test_results_equal_those_of_the_predictor(root, weights, tmp_path):
    status, output = predict(tmp_path, weights, "--input", root / "val2017" / "00002.png", "--no-pictures")
    assert status == 0, output
    predictions = Predictor(weights, threshold=0.7, device="cpu")(root / "val2017" / "00002.png")
    assert predictions.scores.size and [entry["score"] for entry in results(tmp_path)] == to_four_digits(
        predictions.scores
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.json"]


def test_trailing_key_value_pairs_override_the_config(root, weights, tmp_path):
    image, opts = root / "val2017" / "00002.png", ("INPUT.MIN_SIZE_TEST", "32")
    status, output = predict(tmp_path, weights, "--input", image, "--threshold", "0", "--no-images", *opts)
    assert status == 0, output
    scores = [entry["score"] for entry in results(tmp_path)]
    assert scores == to_four_digits(Predictor(weights, threshold=0, device="cpu", opts=opts)(image).scores)
    assert scores != to_four_digits(Predictor(weights, threshold=0, device="cpu")(image).scores)


def test_panoptic_model_writes_one_stuff_segment_per_image(root, tmp_path):
    weights, *_ = save_untrained(tmp_path, *PANOPTIC)
    status, output = predict(tmp_path, weights, "--input", root / "val2017", "--threshold", "0")
    assert status == 0, output
    stuff = [entry for entry in results(tmp_path) if entry["category_name"] == "triangle"]
    assert stuff and len({entry["image_id"] for entry in stuff}) == len(stuff), "one segment per image"


def test_unreadable_images_are_reported_after_the_others(root, weights, tmp_path):
    folder = shutil.copytree(root / "train2017", tmp_path / "photos")
    for name in ("00002.png", "00003.png", "00004.png", "00005.png"):
        (folder / name).write_bytes(b"no image")
    status, output = predict(tmp_path, weights, "--input", folder, "--threshold", "0.1")
    assert status == 1 and "Traceback" not in output
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: 4 of 6 images could not be read: ")
    assert last.count("not an image") == 3 and "00002.png: not an image" in last and last.endswith("; ...")
    assert "in 2 of 2 images" in output
    assert {entry["image_id"] for entry in results(tmp_path)} == {1, 6}
    assert {path.name for path in (tmp_path / "out").glob("*.jpg")} == {"00001.jpg", "00006.jpg"}


def test_summary_says_that_there_are_no_detections(root, weights, tmp_path):
    status, output = predict(tmp_path, weights, "--input", root / "val2017", "--threshold", "1")
    assert status == 0 and "No detection in 3 images has a score of 1 or more" in output
    assert results(tmp_path) == [] and len(list((tmp_path / "out").glob("*.jpg"))) == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--input", "gone.jpg"), "gone.jpg: no such file or folder"),
        (("--weights", "gone.pth"), "gone.pth: no such checkpoint"),
        (("--output", "IMAGES"), "this folder holds input images"),
        (("--batch", "0"), "--batch: 0: expected a whole number from 1"),
    ],
    ids=["input", "weights", "output", "batch"],
)
def test_mistake_is_one_message_and_writes_nothing(root, weights, tmp_path, args, message):
    args = [root / "val2017" if arg == "IMAGES" else arg for arg in args]
    before = files_below(root)
    status, output = predict(tmp_path, weights, *(() if "--input" in args else ("--input", root / "val2017")), *args)
    assert status in (1, 2) and "Traceback" not in output
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert files_below(root) == before and not (tmp_path / "out").exists()


# ---- input images and names of their drawings


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
        "no_duplicates",
        "file_like_a_pattern",
        "explicit_file",
    ],
)
def test_images_are_sorted_without_duplicates(photos, monkeypatch, names, expected):
    monkeypatch.chdir(photos)
    assert find_images(names) == list(map(Path, expected))


@pytest.mark.parametrize("name", ["*.gif", "empty", "gone.jpg"])
def test_name_without_images_is_an_error(photos, monkeypatch, name):
    monkeypatch.chdir(photos)
    Path("empty").mkdir()
    with pytest.raises(InputError, match=re.escape(name)):
        find_images(["b.jpg", name])


def test_folder_of_folders_is_an_error_with_a_pattern(photos, monkeypatch):
    monkeypatch.chdir(photos)
    for number, suffix in enumerate((".jpg", ".PNG")):
        (photos / "my [pics]" / str(number)).mkdir(parents=True)
        (photos / "my [pics]" / str(number) / f"a{suffix}").touch()
    with pytest.raises(InputError) as error:
        find_images(["my [pics]"])
    _, patterns = str(error.value).split("; give ")
    assert find_images(shlex.split(patterns)) == [Path("my [pics]/0/a.jpg"), Path("my [pics]/1/a.PNG")]


def test_drawings_have_unique_names_from_their_images():
    paths = ["a/cat.jpg", "a/cat.png", "a/cat_2.jpg", "b/cat.jpg", "dog.v2.png"]
    stems = ["cat", "cat_2", "cat_2_2", "cat_3", "dog.v2"]
    assert list(unique_stems(list(map(Path, paths))).values()) == stems


def test_output_must_be_a_folder_without_input_images(photos):
    check_output(photos / "out", [photos / "b.jpg"])
    with pytest.raises(InputError, match="holds input images"):
        check_output(photos / "deep" / "..", [photos / "deep" / "b.jpg", photos / "b.jpg"])
    with pytest.raises(InputError, match="a file, expected a folder"):
        check_output(photos / "notes.txt", [photos / "b.jpg"])


def test_one_image_that_fails_does_not_stop_the_others(weights, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, size_wh in {"a_thin": (20_000, 1), "c_long": (70_000, 3), "d_plain": (64, 64)}.items():
        Image.new("RGB", size_wh, "red").save(folder / f"{name}.png")
    Image.new("1", (20_000, 20_000)).save(folder / "b_bomb.png")
    status, output = predict(tmp_path, weights, "--input", folder, "--threshold", "0.3")
    assert status == 1 and "Traceback" not in output
    assert re.search(r"error: 1 of 4 images could not be read: \S*b_bomb\.png: the image has more than 200,", output)
    assert {entry["image_id"] for entry in results(tmp_path)} == {1, 3, 4}
    drawings = {path.name for path in (tmp_path / "out").glob("*.jpg")}
    assert drawings == {"a_thin.jpg", "c_long.jpg", "d_plain.jpg"}
    with Image.open(tmp_path / "out" / "c_long.jpg") as drawing:
        assert drawing.size == (65_500, 3)


def test_a_drawing_that_cannot_be_written_keeps_the_predictions(weights, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 64), "red").save(path)
    (tmp_path / "out" / "a.jpg").mkdir(parents=True)
    found, problems = predict_files(Predictor(weights, threshold=0.3, device="cpu"), [path], tmp_path / "out")
    assert found and results(tmp_path) == found and len(problems) == 1 and "a.jpg" in problems[0]


def test_an_image_that_vanishes_keeps_its_predictions(weights, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 64), "red").save(path)
    predictor = Predictor(weights, threshold=0.3, device="cpu")
    predictor._prediction = lambda *args, make=predictor._prediction: path.unlink() or make(*args)
    found, problems = predict_files(predictor, [path], tmp_path / "out")
    assert found and results(tmp_path) == found and problems == [f"{path}: no such image"]
