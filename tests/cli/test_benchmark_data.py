"""The start of a training is timed on a dataset that the command makes."""

import json

import pytest

from d2_detr.data.datasets.random_coco import make_random_coco
from d2_detr.data.formats.coco import read_coco
from d2_detr.data.images import check_image
from d2_detr.utils.errors import InputError
from tests.cli.processes import run

NUMBERS = ("--images", "12", "--val-images", "4", "--annotations", "60")
SMALL = (
    "MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64 DATALOADER.NUM_WORKERS 0 INPUT.MIN_SIZE_TRAIN (64,)"
).split()


@pytest.fixture
def made(tmp_path):
    make_random_coco(tmp_path, num_images=12, num_val_images=4, num_annotations=60)
    return tmp_path


def test_first_and_second_start_are_timed(tmp_path):
    output = tmp_path / "times.json"
    status, printed = run(tmp_path, "benchmark_data.py", tmp_path / "data", *NUMBERS, "--output", output, *SMALL)
    assert status == 0, printed
    results = json.loads(output.read_text())
    assert list(results) == ["first start", "second start"] and "first batch" in printed
    for measured in results.values():
        assert measured["memory_mb"] > 50 and measured["peak_mb"] > 50
        steps = [measured[name] for name in ("imports", "data and checks", "trainer", "first batch")]
        assert min(steps) > 0 and sum(steps) == pytest.approx(measured["total"])


def test_a_start_that_fails_is_an_error(tmp_path):
    status, printed = run(tmp_path, "benchmark_data.py", tmp_path / "data", *NUMBERS, "SOLVER.IMS_PER_BATCH", "x")
    assert status == 1 and "IMS_PER_BATCH" in printed
    assert printed.splitlines()[-1].endswith("the training could not be started; the messages above say why")


def test_the_dataset_has_the_given_numbers_and_valid_files(made):
    for split, num_images, num_annotations in (("train", 12, 60), ("val", 4, 20)):
        folder = made / f"{split}2017"
        file = read_coco(made / f"annotations/instances_{split}2017.json", folder, strict=True)
        assert (len(file.images), len(file.annotations)) == (num_images, num_annotations)
        for image in file.images:
            check_image(folder / image["file_name"], (image["width"], image["height"]))
        assert len({path.read_bytes() for path in folder.iterdir()}) == num_images


def test_the_same_seed_makes_the_same_dataset(made, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    make_random_coco(other, num_images=12, num_val_images=4, num_annotations=60)
    files = [path.relative_to(made) for path in made.rglob("*") if path.is_file()]
    assert len(files) > 16 and all((made / path).read_bytes() == (other / path).read_bytes() for path in files)


def test_other_files_are_left_alone(made, tmp_path_factory):
    with pytest.raises(InputError, match="has a dataset of other numbers"):
        make_random_coco(made, num_images=13, num_val_images=4, num_annotations=60)
    other = tmp_path_factory.mktemp("other")
    (other / "mine.jpg").touch()
    with pytest.raises(InputError, match="not empty, and not a dataset of this command"):
        make_random_coco(other, num_images=12, num_val_images=4, num_annotations=60)
