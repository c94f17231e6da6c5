"""One annotation file shared out: nothing lost, every class in both parts, pictures of all places found."""

import json
import re
import runpy
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2_detr.data.datasets.classes import dataset_classes
from d2_detr.data.datasets.custom import TRAIN, VAL, register_custom
from d2_detr.data.formats.coco import read_coco
from d2_detr.data.splits import stratified, write_split
from d2_detr.utils.errors import InputError
from tests import shapes

from detectron2.data import DatasetCatalog

TOOL = Path(__file__).parents[2] / "tools" / "split_coco.py"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of twenty pictures with one annotation file."""
    root = shapes.draw_shapes(tmp_path_factory.mktemp("photos"), pictures=(20, 1))
    content = shapes.read(root, "train")
    content["info"] = {"contributor": "somebody"}
    (root / "train2017" / "all.json").write_text(json.dumps(content))
    return root / "train2017"


@pytest.fixture
def own(photos, tmp_path):
    """A copy that may be changed, and how to share it out."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)

    def split(change=lambda content: None, pictures=folder, **how):
        content = json.loads((photos / "all.json").read_text())
        change(content)
        (folder / "all.json").write_text(json.dumps(content))
        return write_split(read_coco(folder / "all.json", pictures), pictures, tmp_path / "coco", **how)

    return folder, tmp_path / "coco", split


# ---- who goes where

sets_of_classes = st.lists(st.sets(st.sampled_from("abcde"), min_size=1), min_size=1, max_size=60)


@given(sets_of_classes, st.sampled_from([0.1, 0.2, 0.5]), st.integers(0, 5))
def test_a_class_of_its_own_pictures_gets_its_share(classes, share, seed):
    classes = [{min(found)} for found in classes]  # so that no picture belongs to two
    chosen = stratified(classes, share, seed)
    for name, count in Counter(name for found in classes for name in found).items():
        in_val = sum(name in classes[i] for i in chosen)
        assert abs(in_val - min(max(count * share, 1), count - 1)) < 1
        assert (in_val > 0) == (count > 1)


@given(sets_of_classes, st.integers(0, 5))
def test_the_only_picture_of_a_class_is_for_training_and_a_seed_says_all(classes, seed):
    chosen = stratified(classes, 0.2, seed)
    counts = Counter(name for found in classes for name in found)
    assert all(counts[name] > 1 for i in chosen for name in classes[i])
    assert chosen <= set(range(len(classes))) and chosen == stratified(classes, 0.2, seed)


def test_classes_that_come_together_are_shared_out_too():
    classes = [{"cat", "dog"}] * 40 + [{"dog"}] * 50 + [{"owl", "dog"}] * 10
    for seed in range(5):
        chosen = stratified(classes, 0.2, seed)
        counts = Counter(name for i in chosen for name in classes[i])
        assert counts["owl"] == 2 and abs(counts["cat"] - 8) <= 1 and abs(counts["dog"] - 20) <= 2
    assert stratified(classes, 0.2, 0) != stratified(classes, 0.2, 1)


# ---- what is written


def test_both_parts_make_a_dataset_that_trains_and_nothing_is_lost_or_copied(own):
    folder, output, split = own
    split()
    register_custom(output)
    assert dataset_classes(TRAIN) == dataset_classes(VAL) == ["disc", "square", "triangle"]
    parts = [DatasetCatalog.get(name) for name in (TRAIN, VAL)]
    assert [len(part) for part in parts] == [16, 4]
    records = [record for part in parts for record in part]
    everything = read_coco(folder / "all.json", folder)
    assert {record["image_id"] for record in records} == {image["id"] for image in everything.images}
    assert sum(len(record["annotations"]) for record in records) == len(everything.annotations)
    for record in records:
        assert Path(record["file_name"]).samefile(folder / Path(record["file_name"]).name), "linked"


@pytest.mark.parametrize("there", ["annotations/custom_val.json", "train2017/00003.png"])
def test_what_is_there_is_left_alone(own, there):
    _, output, split = own
    (output / there).parent.mkdir(parents=True)
    (output / there).write_text("of the person")
    with pytest.raises(InputError, match=f"{re.escape(there)} is there already"):
        split(lambda content: None if "json" in there else keep_in_training(content, "00003.png"))
    assert [path for path in output.rglob("*") if path.is_file()] == [output / there]
    assert (output / there).read_text() == "of the person"


def keep_in_training(content, file_name):
    """Give a picture a class that no other has."""
    [image] = [image for image in content["images"] if image["file_name"] == file_name]
    content["categories"].append({"id": 99, "name": "rare"})
    content["annotations"].append({"image_id": image["id"], "category_id": 99, "bbox": [1, 1, 9, 9]})


def test_it_goes_on_where_it_was_interrupted(own, monkeypatch):
    _, output, split = own
    with monkeypatch.context() as patch:
        patch.setattr("d2_detr.data.splits.write_json", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            split()
    split()
    assert len(list(output.glob("*2017/*.png"))) == 20


def test_where_links_are_not_possible_pictures_are_copied(own, monkeypatch):
    folder, output, split = own
    monkeypatch.setattr("os.link", lambda *args: (_ for _ in ()).throw(OSError("another disk")))
    split()
    copies = list(output.glob("*2017/*.png"))
    assert len(copies) == 20 and all(copy.read_bytes() == (folder / copy.name).read_bytes() for copy in copies)
    assert not any(copy.samefile(folder / copy.name) for copy in copies)


@pytest.mark.parametrize(
    "prefix",
    ["images/", "../../label-studio/data/media/", "..\\..\\media\\", "/home/somebody/"],
    ids=["folder", "above", "windows", "absolute"],
)
def test_pictures_are_found_by_name_where_the_annotations_have_ways_of_another_machine(own, prefix):
    _, output, split = own

    def moved(content):
        for image in content["images"]:
            image["file_name"] = prefix + image["file_name"]

    split(moved)
    names = [image["file_name"] for name in ("train", "val") for image in shapes.read(output, name)["images"]]
    assert len(names) == 20 and all(name.removesuffix(".png").isdigit() for name in names)


def test_pictures_of_the_same_name_keep_their_folders(own):
    folder, output, split = own

    def in_folders(content):
        for number, image in enumerate(content["images"]):
            way = f"{number // 10}/{number % 10}.png"
            (folder / way).parent.mkdir(exist_ok=True)
            (folder / image["file_name"]).rename(folder / way)
            image["file_name"] = way

    split(in_folders)
    names = {image["file_name"] for name in ("train", "val") for image in shapes.read(output, name)["images"]}
    assert names == {f"{a}/{b}.png" for a in range(2) for b in range(10)}
    register_custom(output)
    assert all(Path(record["file_name"]).is_file() for name in (TRAIN, VAL) for record in DatasetCatalog.get(name))


@pytest.mark.parametrize(
    ("change", "how", "message"),
    [
        (lambda c: c["images"][3].update(file_name="gone.png"), {}, r"gone\.png: named in .*--pictures"),
        (lambda c: c["images"][3].update(file_name="00001.png"), {}, r"00001\.png is the picture of two entries"),
        (lambda c: None, {"val_share": 20}, "validation share 20"),
        (lambda c: c.update(images=c["images"][:1], annotations=[]), {}, "1 pictures are too few"),
    ],
    ids=["missing", "twice", "share", "few"],
)
def test_a_mistake_is_told_before_anything_is_written(own, change, how, message):
    _, output, split = own
    with pytest.raises(InputError, match=message):
        split(change, **how)
    assert not output.exists()


def test_the_tool_shows_what_each_part_got(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(TOOL), str(photos / "all.json"), "--output", str(tmp_path / "coco")])
    runpy.run_path(str(TOOL), run_name="__main__")
    said = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if len(line.split()) == 3}
    assert rows["pictures"] == ["16", "4"] and {"disc", "square", "triangle"} <= rows.keys()
    assert f"tools/finetune.py --data {tmp_path}/coco" in said
