"""Splitting one annotation file: nothing is lost, classes are stratified, images are located and linked."""

import json
import re
import runpy
import shlex
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2_detr.config.keys import CUSTOM_TRAIN, CUSTOM_VAL
from d2_detr.data.datasets import load_dataset
from d2_detr.data.formats.coco import read_coco
from d2_detr.data.formats.roboflow import original_image_name
from d2_detr.data.splits import stratified_subset, write_split
from d2_detr.utils.errors import InputError
from tests import shapes

TOOL = Path(__file__).parents[2] / "tools" / "split_coco.py"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of twenty images with one annotation file."""
    root = shapes.draw_shapes(tmp_path_factory.mktemp("photos"), num_images=(20, 1))
    content = shapes.read(root, "train")
    content["info"] = {"contributor": "somebody"}
    (root / "train2017" / "all.json").write_text(json.dumps(content))
    return root / "train2017"


@pytest.fixture
def copy(photos, tmp_path):
    """A copy that may be modified, the output folder, and a function that splits it."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)

    def split(change=lambda content: None, image_root=folder, **options):
        content = json.loads((photos / "all.json").read_text())
        change(content)
        (folder / "all.json").write_text(json.dumps(content))
        return write_split(read_coco(folder / "all.json", image_root), image_root, tmp_path / "coco", **options)

    return folder, tmp_path / "coco", split


# ---- stratification

class_sets = st.lists(st.sets(st.sampled_from("abcde"), min_size=1), min_size=1, max_size=60)


@given(class_sets, st.sampled_from([0.1, 0.2, 0.5]), st.integers(0, 5))
def test_single_class_images_are_split_by_the_share(classes, share, seed):
    classes = [{min(class_set)} for class_set in classes]  # one class per image
    chosen = stratified_subset(classes, share, seed)
    for name, count in Counter(name for class_set in classes for name in class_set).items():
        in_val = sum(name in classes[i] for i in chosen)
        assert abs(in_val - min(max(count * share, 1), count - 1)) < 1
        assert (in_val > 0) == (count > 1)


@given(class_sets, st.integers(0, 5))
def test_only_image_of_a_class_is_in_the_training_split(classes, seed):
    chosen = stratified_subset(classes, 0.2, seed)
    counts = Counter(name for class_set in classes for name in class_set)
    assert all(counts[name] > 1 for i in chosen for name in classes[i])
    assert chosen <= set(range(len(classes))) and chosen == stratified_subset(classes, 0.2, seed)


def test_classes_that_share_images_are_stratified():
    classes = [{"cat", "dog"}] * 40 + [{"dog"}] * 50 + [{"owl", "dog"}] * 10
    for seed in range(5):
        chosen = stratified_subset(classes, 0.2, seed)
        counts = Counter(name for i in chosen for name in classes[i])
        assert counts["owl"] == 2 and abs(counts["cat"] - 8) <= 1 and abs(counts["dog"] - 20) <= 2
    assert stratified_subset(classes, 0.2, 0) != stratified_subset(classes, 0.2, 1)


def test_augmented_copies_of_an_image_stay_in_one_split(copy):
    folder, output, split = copy

    def augment(content):
        for i, image in enumerate(content["images"]):
            name = f"{i // 2}_png.rf.{i:032x}.png"
            (folder / image["file_name"]).rename(folder / name)
            image["file_name"] = name

    split(augment, val_share=0.3)
    train, val = (
        [original_image_name(image["file_name"]) for image in shapes.read(output, name)["images"]]
        for name in ("train", "val")
    )
    assert len(val) == 6 and set(Counter(val).values()) == {2} and len(train) == 14 and not {*train} & {*val}


# ---- files


def test_splits_contain_all_images_as_links(copy):
    folder, output, split = copy
    split()
    datasets = [load_dataset(name, output) for name in (CUSTOM_TRAIN, CUSTOM_VAL)]
    assert all(dataset.label_map.names == ("disc", "square", "triangle") for dataset in datasets)
    splits = [dataset.records for dataset in datasets]
    assert [len(records) for records in splits] == [16, 4]
    assert {path.name for path in (output / "annotations").iterdir()} == {"custom_train.json", "custom_val.json"}
    records = [*splits[0], *splits[1]]
    everything = read_coco(folder / "all.json", folder)
    assert {record["image_id"] for record in records} == {image["id"] for image in everything.images}
    assert sum(len(record["annotations"]) for record in records) == len(everything.annotations)
    for record in records:
        assert Path(record["file_name"]).samefile(folder / Path(record["file_name"]).name), "linked"


@pytest.mark.parametrize("existing", ["annotations/custom_val.json", "train2017/00003.png"])
def test_existing_files_are_not_replaced(copy, existing):
    _, output, split = copy
    (output / existing).parent.mkdir(parents=True)
    (output / existing).write_text("of the user")
    with pytest.raises(InputError, match=f"{re.escape(existing)} exists already"):
        split(lambda content: None if "json" in existing else keep_in_training(content, "00003.png"))
    assert [path for path in output.rglob("*") if path.is_file()] == [output / existing]
    assert (output / existing).read_text() == "of the user"


def keep_in_training(content, file_name):
    """Give an image a class that no other image has."""
    [image] = [image for image in content["images"] if image["file_name"] == file_name]
    content["categories"].append({"id": 99, "name": "rare"})
    content["annotations"].append({"image_id": image["id"], "category_id": 99, "bbox": [1, 1, 9, 9]})


def test_an_interrupted_split_can_be_repeated(copy, monkeypatch):
    _, output, split = copy
    with monkeypatch.context() as patch:
        patch.setattr("d2_detr.data.splits.write_json", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            split()
    split()
    assert len(list(output.glob("*2017/*.png"))) == 20


def test_images_are_copied_if_links_are_not_possible(copy, monkeypatch):
    folder, output, split = copy
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
def test_images_are_found_despite_paths_of_another_machine(copy, prefix):
    _, output, split = copy

    def moved(content):
        for image in content["images"]:
            image["file_name"] = prefix + image["file_name"]

    split(moved)
    names = [image["file_name"] for name in ("train", "val") for image in shapes.read(output, name)["images"]]
    assert len(names) == 20 and all(name.removesuffix(".png").isdigit() for name in names)


@pytest.mark.parametrize("prefix", ["{outside}", "../outside"], ids=["absolute", "above"])
def test_images_outside_the_folder_are_not_taken(copy, prefix):
    folder, output, split = copy
    outside = folder.parent / "outside"
    outside.mkdir()
    (folder / "00003.png").rename(outside / "00003.png")
    name = f"{prefix.format(outside=outside)}/00003.png"
    with pytest.raises(InputError, match=r"00003\.png: no such image, but .*--images"):
        split(lambda content: content["images"][3].update(file_name=name))
    assert not output.exists()


def test_images_of_the_same_name_keep_their_folders(copy):
    folder, output, split = copy

    def in_folders(content):
        for number, image in enumerate(content["images"]):
            path = f"{number // 10}/{number % 10}.png"
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / image["file_name"]).rename(folder / path)
            image["file_name"] = path

    split(in_folders)
    names = {image["file_name"] for name in ("train", "val") for image in shapes.read(output, name)["images"]}
    assert names == {f"{a}/{b}.png" for a in range(2) for b in range(10)}
    records = [record for name in (CUSTOM_TRAIN, CUSTOM_VAL) for record in load_dataset(name, output).records]
    assert all(Path(record["file_name"]).is_file() for record in records)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda c: c["images"][3].update(file_name="gone.png"), {}, r"gone\.png: no such image, but .*--images"),
        (
            lambda c: c["images"][3].update(file_name="00001.png"),
            {},
            r"two entries of `images` have the image .*00001\.png",
        ),
        (lambda c: None, {"val_share": 20}, "validation share 20"),
        (lambda c: c.update(images=c["images"][:1], annotations=[]), {}, "1 images are too few"),
    ],
    ids=["missing", "duplicate", "share", "few"],
)
def test_an_error_is_raised_before_anything_is_written(copy, change, options, message):
    _, output, split = copy
    with pytest.raises(InputError, match=message):
        split(change, **options)
    assert not output.exists()


def test_tool_prints_object_counts_per_split(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(TOOL), str(photos / "all.json"), "--output", str(tmp_path / "coco")])
    runpy.run_path(str(TOOL), run_name="__main__")
    output = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in output.splitlines() if len(line.split()) == 3}
    assert rows["images"] == ["16", "4"] and {"disc", "square", "triangle"} <= rows.keys()
    assert f"tools/finetune.py --data {tmp_path}/coco" in output


def test_the_printed_command_is_quoted_for_the_shell(photos, tmp_path, monkeypatch, capsys):
    output = tmp_path / "my data; it's $HOME"
    monkeypatch.setattr(sys, "argv", [str(TOOL), str(photos / "all.json"), "--output", str(output)])
    runpy.run_path(str(TOOL), run_name="__main__")
    line = capsys.readouterr().out.rpartition("to train: ")[2]
    assert shlex.split(line)[-2:] == ["--data", str(output)]


def test_the_tool_omits_the_root_category_of_roboflow(copy, monkeypatch, capsys):
    folder, output, _ = copy
    content = json.loads((folder / "all.json").read_text())
    categories = [category | {"supercategory": "shapes"} for category in content["categories"]]
    content["categories"] = [{"id": 0, "name": "shapes", "supercategory": "none"}, *categories]
    (folder / "all.json").write_text(json.dumps(content))
    monkeypatch.setattr(sys, "argv", [str(TOOL), str(folder / "all.json"), "--output", str(output)])
    runpy.run_path(str(TOOL), run_name="__main__")
    for split in ("train", "val"):
        assert [c["name"] for c in shapes.read(output, split)["categories"]] == ["disc", "square", "triangle"]
