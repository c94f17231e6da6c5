"""The layouts of a custom dataset: recognition, reading, conversion and errors."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from d2_detr import cli
from d2_detr.cli import COMMANDS
from d2_detr.config.keys import CUSTOM_TEST, CUSTOM_TRAIN, CUSTOM_VAL
from d2_detr.data.datasets import conversion, load_dataset
from d2_detr.data.datasets.conversion import coco_sources
from d2_detr.data.datasets.layouts import LAYOUTS, find_layout
from d2_detr.data.datasets.synthetic import draw_dataset
from d2_detr.data.formats.panoptic_from_instances import make_panoptic
from d2_detr.utils.command_line import command
from d2_detr.utils.errors import InputError
from tests import shapes

NAMES = ("disc", "square", "triangle")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def logged(monkeypatch):
    """The lines of the log."""
    lines = []
    monkeypatch.setattr(conversion.logger, "info", lambda text, *args: lines.append(text % args))
    return lines


def run_printed_command(printed, monkeypatch):
    """Run a command that a message contains; return its options."""
    arguments = shlex.split(printed)
    arguments = arguments[next(i for i, argument in enumerate(arguments) if argument in COMMANDS) :]
    monkeypatch.setattr(sys, "argv", ["d2_detr", *arguments])
    cli.main()
    return arguments[1:]


def records(name, root):
    return load_dataset(name, root).records


def names(name, root):
    return load_dataset(name, root).label_map.names


# ---- the same shapes in every layout


def as_custom(root):
    return shapes.draw_shapes(root)


def as_coco(root, annotations="instances_{}2017.json", images="{}2017"):
    shapes.draw_shapes(root)
    for split in ("train", "val"):
        file, folder = root / "annotations" / annotations.format(split), root / images.format(split)
        (root / f"annotations/custom_{split}.json").rename(file)
        folder.parent.mkdir(exist_ok=True)
        (root / f"{split}2017").rename(folder)
    return root


def as_roboflow(root, val="valid", root_name="shapes", first_id=1):
    """Write Roboflow's root category 0, unless `root_name` is "", and the shape categories from `first_id` on."""
    shapes.draw_shapes(root)
    ids = {old: new for new, old in enumerate(shapes.CATEGORIES, first_id)}
    for split, folder in (("train", "train"), ("val", val)):
        content = shapes.read(root, split)
        content["categories"] = [
            {"id": ids[c["id"]], "name": c["name"], "supercategory": root_name} for c in content["categories"]
        ]
        if root_name:
            content["categories"].insert(0, {"id": 0, "name": root_name, "supercategory": "none"})
        for annotation in content["annotations"]:
            annotation["category_id"] = ids[annotation["category_id"]]
        (root / f"{split}2017").rename(root / folder)
        write(content, root / folder / "_annotations.coco.json")
    shutil.rmtree(root / "annotations")
    return root


def as_via(root, file="via_region_data.json", attributes=lambda name: {"kind": name}):
    """`attributes` maps the name of a shape to the attributes of its region."""
    shapes.draw_shapes(root)
    for split in ("train", "val"):
        content = shapes.read(root, split)
        entries = {
            image["id"]: {"filename": image["file_name"], "size": 7, "regions": []} for image in content["images"]
        }
        for annotation in content["annotations"]:
            (polygon,) = annotation["segmentation"]
            shape = {"name": "polygon", "all_points_x": polygon[::2], "all_points_y": polygon[1::2]}
            given = attributes(shapes.CATEGORIES[annotation["category_id"]])
            entries[annotation["image_id"]]["regions"].append({"shape_attributes": shape, "region_attributes": given})
        (root / f"{split}2017").rename(root / split)
        write({f"{entry['filename']}7": entry for entry in entries.values()}, root / split / file)
    shutil.rmtree(root / "annotations")
    return root


def write(content, path):
    path.write_text(json.dumps(content))


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    write(content, path)


def tree(root):
    return {path: path.is_file() and path.read_bytes() for path in root.rglob("*")}


def objects(name, root):
    """{file name: boxes, classes and segmentations of the image}"""
    return {
        Path(record["file_name"]).name: [
            (a["bbox"], a["category_id"], a["segmentation"]) for a in record["annotations"]
        ]
        for record in records(name, root)
    }


DRAWN = {"custom": as_custom, "coco": as_coco, "roboflow": as_roboflow, "via": as_via}
IDS = {"custom": (3, 7, 20), "coco": (3, 7, 20), "roboflow": (1, 2, 3), "via": (1, 2, 3)}


@pytest.mark.parametrize("layout", DRAWN)
def test_a_folder_in_any_layout_gives_the_same_objects(layout, tmp_path):
    expected_root = as_custom(tmp_path / "expected")
    expected = {name: objects(name, expected_root) for name in (CUSTOM_TRAIN, CUSTOM_VAL)}
    root = DRAWN[layout](tmp_path / "data")
    before = tree(root)
    assert find_layout(root).name == layout
    for name in (CUSTOM_TRAIN, CUSTOM_VAL):
        assert objects(name, root) == expected[name]
        assert all(Path(record["file_name"]).is_file() for record in records(name, root))
        assert names(name, root) == NAMES and load_dataset(name, root).label_map.ids == IDS[layout]
        assert load_dataset(name, root).metadata.image_root == str(Path(records(name, root)[0]["file_name"]).parent)
    assert tree(root) == before, "nothing is written to the user's folder"


def test_custom_layout_has_precedence_over_the_others(tmp_path):
    for draw in reversed(DRAWN.values()):
        draw(tmp_path / "one")
        shutil.copytree(tmp_path / "one", tmp_path / "all", dirs_exist_ok=True)
        shutil.rmtree(tmp_path / "one")
    assert find_layout(tmp_path / "all").name == "custom"


@pytest.mark.parametrize(
    ("annotations", "images"),
    [("instances_{}.json", "{}"), ("instances_{}.json", "images/{}"), ("instances_{}2017.json", "images/{}2017")],
)
def test_coco_layout_accepts_several_file_names(annotations, images, tmp_path):
    root = as_coco(tmp_path / "coco", annotations, images)
    assert names(CUSTOM_TRAIN, root) == NAMES
    for name, split in ((CUSTOM_TRAIN, "train"), (CUSTOM_VAL, "val")):
        path = Path(records(name, root)[0]["file_name"])
        assert path.is_file() and path.parent == tmp_path / "coco" / images.format(split)


@pytest.mark.parametrize("layout", DRAWN)
def test_log_names_layout_annotations_and_images(layout, tmp_path, logged):
    root = DRAWN[layout](tmp_path / "data")
    records(CUSTOM_TRAIN, root)
    (line,) = [line for line in logged if "layout" in line]
    assert not any("test/ is" in line for line in logged), "there is no test split"
    splits = find_layout(root).splits
    assert line == (
        f"{root} has the layout `{layout}`: "
        f"custom_train is {splits[CUSTOM_TRAIN].annotations.relative_to(root)} with the images in "
        f"{splits[CUSTOM_TRAIN].images.name}/; "
        f"custom_val is {splits[CUSTOM_VAL].annotations.relative_to(root)} with the images in "
        f"{splits[CUSTOM_VAL].images.name}/"
    )


@pytest.mark.parametrize("layout", DRAWN)
def test_validation_split_loads_without_training_split(layout, tmp_path):
    root = DRAWN[layout](tmp_path / "data")
    missing = find_layout(root).splits[CUSTOM_TRAIN].annotations
    missing.unlink()
    assert names(CUSTOM_VAL, root) == NAMES and load_dataset(CUSTOM_VAL, root).label_map.ids == IDS[layout]
    with pytest.raises(FileNotFoundError) as error:
        records(CUSTOM_TRAIN, root)
    expected = f"{missing}: no such file; {root} has the layout `{layout}` without this split. "
    assert str(error.value) == f"{expected}{command('split')} makes splits of one annotation file"


@pytest.mark.parametrize("layout", DRAWN)
def test_panoptic_dataset_is_beside_the_annotations(layout, tmp_path):
    root = DRAWN[layout](tmp_path / "data")
    for name in (CUSTOM_TRAIN, CUSTOM_VAL):
        with pytest.raises(FileNotFoundError) as error:
            names(f"{name}_panoptic", root)
        make_panoptic(re.search(r"make-panoptic (\S+\.json)", str(error.value)).group(1))  # as the message says
    for name in (CUSTOM_TRAIN, CUSTOM_VAL):
        assert names(f"{name}_panoptic", root) == (*names(name, root), "background")
        things, same_things = (
            load_dataset(n, root).metadata.thing_dataset_id_to_contiguous_id for n in (f"{name}_panoptic", name)
        )
        assert things == same_things, "so that AP means the same classes"
        images, same_images = ([r["file_name"] for r in records(n, root)] for n in (f"{name}_panoptic", name))
        assert images == same_images


def test_panoptic_dataset_loads_without_instance_annotations(tmp_path):
    root = as_custom(tmp_path / "coco")
    for name in (CUSTOM_TRAIN, CUSTOM_VAL):
        make_panoptic(root / f"annotations/{name}.json")
        (root / f"annotations/{name}.json").unlink()
    dataset = load_dataset(f"{CUSTOM_VAL}_panoptic", root, evaluated=False)
    assert dataset.label_map.names == (*NAMES, "background")


# ---- Roboflow


def roboflow_files(root):
    return [root / split / "_annotations.coco.json" for split in ("train", "valid")]


@pytest.mark.parametrize("root_name", ["shapes", "disc"], ids=["another_name", "named_like_a_class"])
def test_the_root_category_is_not_a_class(root_name, tmp_path):
    root = as_roboflow(tmp_path / "data", root_name=root_name)
    assert names(CUSTOM_TRAIN, root) == names(CUSTOM_VAL, root) == NAMES


def test_files_without_a_root_category_are_used_directly(tmp_path, cache):
    root = as_roboflow(tmp_path / "data", root_name="", first_id=0)
    assert [source.path for source in coco_sources(find_layout(root)).values()] == roboflow_files(root)
    assert load_dataset(CUSTOM_TRAIN, root).label_map.ids == (0, 1, 2) and names(CUSTOM_VAL, root) == NAMES


@pytest.mark.parametrize("split", [0, 1], ids=["train", "valid"])
@pytest.mark.parametrize("category_id", [0, "0"], ids=["number", "text"])
def test_root_category_used_in_one_split_is_a_class_in_both(split, category_id, tmp_path):
    root = as_roboflow(tmp_path / "data")
    change(roboflow_files(root)[split], lambda content: content["annotations"][0].update(category_id=category_id))
    assert names(CUSTOM_TRAIN, root) == names(CUSTOM_VAL, root) == ("shapes", *NAMES)
    assert objects((CUSTOM_TRAIN, CUSTOM_VAL)[split], root)["00001.png"][0][1] == 0


@pytest.mark.parametrize(
    "edit",
    [
        lambda categories: categories[0].update(id=9),
        lambda categories: categories[0].update(supercategory="things"),
        lambda categories: categories[0].pop("supercategory"),
        lambda categories: categories[0].update(name="forms"),
        lambda categories: categories[2].update(supercategory="square"),
        lambda categories: categories[2].pop("supercategory"),
        lambda categories: categories.append(categories.pop(0)),
    ],
    ids=["another_id", "not_at_the_top", "no_supercategory", "no_children", "another_parent", "no_parent", "not_first"],
)
def test_a_category_that_resembles_the_root_is_a_class(edit, tmp_path):
    root = as_roboflow(tmp_path / "data")
    for path in roboflow_files(root):
        change(path, lambda content: edit(content["categories"]))
    assert len(names(CUSTOM_TRAIN, root)) == 4


def test_a_single_category_is_a_class(tmp_path):
    root = as_roboflow(tmp_path / "data")
    for path in roboflow_files(root):
        change(path, lambda content: content.update(categories=content["categories"][:1], annotations=[]))
    assert names(CUSTOM_TRAIN, root) == ("shapes",)


@pytest.mark.parametrize("val", ["valid", "test"])
def test_test_split_validates_only_without_a_valid_split(val, tmp_path, logged):
    root = as_roboflow(tmp_path / "data", val=val)
    if val == "valid":
        shutil.copytree(root / "train", root / "test")
    assert {Path(record["file_name"]).parent for record in records(CUSTOM_VAL, root)} == {root / val}
    lines = {"valid": [], "test": ["There is no valid/, so test/ is the validation set"]}
    assert [line for line in logged if "test/ is" in line] == lines[val]
    assert {Path(record["file_name"]).parent for record in records(CUSTOM_TEST, root)} == {root / "test"}


@pytest.mark.parametrize("root_name", ["shapes", ""], ids=["converted", "unconverted"])
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["annotations"][2].update(bbox=[1, 2]), r": annotations\[2\] \(id 2\): bbox \[1, 2\]"),
        (lambda c: c["categories"][-1].update(name="star"), r": category 3 is 'star', .*train/_annotations"),
        (lambda c: c.pop("annotations"), ": no list 'annotations'"),
    ],
    ids=["annotation", "category", "section"],
)
def test_error_names_the_original_file(edit, message, root_name, tmp_path):
    root = as_roboflow(tmp_path / "data", root_name=root_name)
    change(roboflow_files(root)[1], edit)
    with pytest.raises(InputError, match=message) as error:
        records(CUSTOM_VAL, root)
    own = str(roboflow_files(root)[1])
    assert str(error.value).startswith(f"{own}: ") and str(error.value).count(".json: ") == 1


# ---- VIA


def cached_files(root):
    return {name: source.path for name, source in coco_sources(find_layout(root)).items()}


def test_a_conversion_is_cached_by_its_content(tmp_path, cache):
    root = as_via(tmp_path / "data")
    first = cached_files(root)
    assert set(first) == {CUSTOM_TRAIN, CUSTOM_VAL} and all(
        path.parent == cache / "datasets" for path in first.values()
    )
    states = {path: path.stat() for path in first.values()}
    assert cached_files(root) == first and {path: path.stat() for path in first.values()} == states, "not written again"
    change(root / "val" / "via_region_data.json", lambda via: via.pop("00001.png7"))
    assert (
        cached_files(root)[CUSTOM_TRAIN] == first[CUSTOM_TRAIN] and cached_files(root)[CUSTOM_VAL] != first[CUSTOM_VAL]
    )


def test_a_changed_file_is_converted_again(tmp_path):
    root = as_via(tmp_path / "data")
    assert len(records(CUSTOM_VAL, root)) == 3
    change(root / "val" / "via_region_data.json", lambda via: via.pop("00001.png7"))
    assert len(records(CUSTOM_VAL, root)) == 2


def test_regions_without_attributes_have_the_folder_class(tmp_path, logged):
    for split, number in (("train", 3), ("val", 2)):
        draw_dataset(tmp_path / "balloon" / split, number, size=64)
    root = f"{tmp_path}/balloon/train/.."
    assert names(CUSTOM_TRAIN, root) == names(CUSTOM_VAL, root) == ("balloon",)
    assert (len(records(CUSTOM_TRAIN, root)), len(records(CUSTOM_VAL, root))) == (3, 2)
    assert "Regions have no attributes: all are of the class 'balloon'" in logged


@pytest.mark.parametrize(
    "attributes",
    [lambda name: {"kind": name, "note": ""}, lambda name: {"kind": name} | ({"note": "?"} if name == "disc" else {})],
    ids=["other_is_empty", "some_have_another"],
)
def test_only_attribute_shared_by_all_regions_is_the_class(attributes, tmp_path, logged):
    root = as_via(tmp_path / "data", attributes=attributes)
    assert names(CUSTOM_TRAIN, root) == NAMES
    assert "The class of a region is its attribute 'kind'" in logged


def test_a_class_has_the_same_id_in_both_splits(tmp_path):
    root = as_via(tmp_path / "data")

    def rename(via, names):
        for entry in via.values():
            for region in entry["regions"]:
                region["region_attributes"]["kind"] = names[region["region_attributes"]["kind"]]

    change(root / "train" / "via_region_data.json", lambda via: rename(via, dict.fromkeys(NAMES, "owl")))
    change(
        root / "val" / "via_region_data.json",
        lambda via: rename(via, {"disc": "cat", "square": "owl", "triangle": "dog"}),
    )
    assert names(CUSTOM_TRAIN, root) == names(CUSTOM_VAL, root) == ("owl", "cat", "dog")
    assert {o[1] for image in objects(CUSTOM_TRAIN, root).values() for o in image} == {0}
    assert {o[1] for image in objects(CUSTOM_VAL, root).values() for o in image} == {0, 1, 2}


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_regions_has_the_classes_of_the_other(split, tmp_path):
    root = as_via(tmp_path / "data")
    change(root / split / "via_region_data.json", lambda via: [entry.update(regions=[]) for entry in via.values()])
    assert names(CUSTOM_TRAIN, root) == names(CUSTOM_VAL, root) == NAMES


def test_project_file_of_any_name_keeps_its_class_order(tmp_path):
    root = as_via(tmp_path / "data", file="mine.json")
    options = {"triangle": "", "disc": "", "square": "", "star": ""}
    for split in ("train", "val"):
        via = json.loads((root / split / "mine.json").read_text())
        declared = {"region": {"kind": {"type": "dropdown", "options": options}}}
        write({"_via_img_metadata": via, "_via_attributes": declared}, root / split / "mine.json")
        write({"camera": {"name": "mine"}}, root / split / "about.json")
        write([1, 2], root / split / "list.json")
    assert names(CUSTOM_TRAIN, root) == names(CUSTOM_VAL, root) == ("triangle", "disc", "square", "star")


def two_attributes(name):
    return {"kind": name, "color": "red"}


def test_ambiguous_class_attribute_is_an_error_with_a_command(tmp_path, monkeypatch):
    root = as_via(tmp_path / "data", attributes=two_attributes)
    with pytest.raises(InputError) as error:
        records(CUSTOM_TRAIN, root)
    message = str(error.value)
    assert message.startswith(f"{root}/train/via_region_data.json: regions have the attributes 'color', 'kind'; ")
    convert = re.search(r"is the class: (.*) \(or --class-name NAME for a single class\)", message).group(1)
    convert = convert.replace("--class-attribute NAME", "--class-attribute kind").replace("A,B,C", ",".join(NAMES))
    for split in ("train", "val"):
        run_printed_command(convert.replace("train", split), monkeypatch)
    assert find_layout(root).splits[CUSTOM_VAL].annotations == root / "annotations" / "instances_val.json"
    assert names(CUSTOM_TRAIN, root) == NAMES and all(Path(r["file_name"]).is_file() for r in records(CUSTOM_VAL, root))


VIA_MISTAKES = {
    "region_without_class": (
        lambda via: via["00001.png7"]["regions"][1]["region_attributes"].clear(),
        InputError,
        r"^\S+/val/via_region_data\.json: 00001\.png: region 1: attribute 'kind' is missing",
    ),
    "bad_region": (
        lambda via: via["00001.png7"]["regions"].append({}),
        InputError,
        r"^\S+/val/via_region_data\.json: 00001\.png: region \d: no field 'shape_attributes'",
    ),
    "regions_are_text": (
        lambda via: via["00001.png7"].update(regions="none"),
        InputError,
        r"^\S+/val/via_region_data\.json: 00001\.png: regions is of type str",
    ),
    "missing_image": (
        lambda via: via.update(x={"filename": "x.png", "regions": []}),
        FileNotFoundError,
        r"^\S+/val/x\.png: no such image",
    ),
    "outside": (
        lambda via: via["00001.png7"]["regions"].append(
            {
                "shape_attributes": {"name": "rect", "x": 100, "y": 1, "width": 5, "height": 5},
                "region_attributes": {"kind": "disc"},
            }
        ),
        InputError,
        r"^\S+/val/via_region_data\.json: 00001\.png: region \d: x 100 to 105, .* is outside the image of 64 x 64",
    ),
}


@pytest.mark.parametrize(("edit", "error", "message"), VIA_MISTAKES.values(), ids=VIA_MISTAKES)
def test_error_in_a_via_file_names_its_location(edit, error, message, tmp_path):
    root = as_via(tmp_path / "data")
    change(root / "val" / "via_region_data.json", edit)
    with pytest.raises(error, match=message):
        records(CUSTOM_TRAIN, root)


def test_two_via_files_need_one_of_the_default_name(tmp_path):
    root = as_via(tmp_path / "data", file="a.json")
    shutil.copy(root / "train" / "a.json", root / "train" / "b.json")
    with pytest.raises(
        InputError, match=r"/train: a\.json, b\.json are all VIA annotations; rename the one to use to via_"
    ):
        find_layout(root)
    (root / "train" / "b.json").rename(root / "train" / "via_region_data.json")
    assert find_layout(root).splits[CUSTOM_TRAIN].annotations.name == "via_region_data.json"


def test_folder_with_one_json_file_per_image_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    for number in range(30):
        (tmp_path / "train" / f"{number}.json").write_text("broken")
    with pytest.raises(FileNotFoundError, match="nor annotations of another layout"):
        find_layout(tmp_path)


def test_damaged_json_file_does_not_hide_the_known_layouts(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "damaged.json").write_text("{")
    with pytest.raises(FileNotFoundError, match="nor annotations of another layout"):
        find_layout(tmp_path)


# ---- folders that are not datasets


def error_message(root):
    with pytest.raises(FileNotFoundError) as error:
        records(CUSTOM_TRAIN, root)
    return str(error.value)


def test_unknown_layout_error_lists_layouts_and_content(tmp_path):
    for name in ("train", "labels", ".git"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for name in ("a.txt", "train/labels.json", ".git/x.json"):
        (tmp_path / "data" / name).write_text("{}")
    message = error_message(tmp_path / "data")
    assert message.startswith(
        f"{tmp_path}/data/annotations/custom_train.json: no such file, nor annotations of another"
    )
    assert message.endswith(f". {tmp_path}/data contains labels/, train/, train/labels.json, a.txt")
    for name, places in LAYOUTS.items():
        assert f"`{name}` ({places[CUSTOM_TRAIN].annotations[0]}, {places[CUSTOM_VAL].annotations[0]}, " in message
    assert "custom_val.json, train2017/, val2017/)" in message and message.count("images beside them") == 2


def test_long_folder_listing_is_truncated(tmp_path):
    for number in range(30):
        (tmp_path / f"{number:02}.jpg").touch()
    assert error_message(tmp_path).endswith("contains 00.jpg, 01.jpg, 02.jpg, 03.jpg, 04.jpg, 05.jpg, 06.jpg, 07.jpg, "
                                         "08.jpg, 09.jpg, ...")  # fmt: skip


@pytest.mark.parametrize(
    ("make", "state"),
    [(lambda p: None, "does not exist; give the folder"), (Path.touch, "is a file, not the folder of a dataset")],
    ids=["nothing", "file"],
)
def test_path_other_than_a_folder_is_an_error(make, state, tmp_path):
    make(tmp_path / "data")
    assert error_message(tmp_path / "data").startswith(f"{tmp_path}/data: {state}")


@pytest.mark.parametrize("layout", DRAWN)
def test_annotation_file_as_path_is_an_error_with_its_folder(layout, tmp_path):
    root = DRAWN[layout](tmp_path / "data")
    splits = find_layout(root).splits
    for name in (CUSTOM_TRAIN, CUSTOM_VAL):
        assert error_message(splits[name].annotations).endswith(f": is a file of a dataset; give its folder, {root}")


def test_empty_folder_is_an_error(tmp_path):
    assert error_message(tmp_path).endswith(f"{tmp_path} is empty")


@pytest.mark.parametrize(
    ("place", "images"),
    [("annotations/instances_default.json", "images/default"), ("result.json", "images"), ("labels.json", ".")],
    ids=["cvat", "label_studio", "beside"],
)
def test_single_annotation_file_error_has_a_split_command(place, images, tmp_path, monkeypatch):
    """The printed command works, and makes a dataset."""
    source, root = DRAWN["custom"](tmp_path / "drawn"), tmp_path / "my data"
    shutil.copytree(source / "train2017", root / images)
    (root / place).parent.mkdir(exist_ok=True)
    (source / "annotations/custom_train.json").rename(root / place)
    message = error_message(root)
    prefix = f"{root}: has one annotation file for all images; to split it, run: "
    assert message.startswith(prefix) and "FOLDER" not in message
    *_, output = run_printed_command(message.removeprefix(prefix), monkeypatch)
    assert len(records(CUSTOM_TRAIN, output)) > 0


def test_split_command_names_an_unusual_images_folder(tmp_path, monkeypatch):
    source, root = DRAWN["custom"](tmp_path / "drawn"), tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "images" / "logo.png").touch()
    shutil.copytree(source / "train2017", root / "scans" / "2024")
    (source / "annotations/custom_train.json").rename(root / "labels.json")
    message = error_message(root)
    assert f"--images {root}/scans/2024 --output" in message
    run_printed_command(message.split("run: ")[1], monkeypatch)


def test_split_command_asks_for_a_missing_images_folder(tmp_path):
    source, root = DRAWN["custom"](tmp_path / "drawn"), tmp_path / "data"
    root.mkdir()
    (source / "annotations/custom_train.json").rename(root / "labels.json")
    assert error_message(root).endswith(f"--images FOLDER (none of its images was found below {root})")


def test_several_annotation_files_error_suggests_names(tmp_path):
    """With the suggested names, the folder is a dataset."""
    root = DRAWN["custom"](tmp_path / "data")
    for old, new in {"custom_train.json": "train.json", "custom_val.json": "val.json"}.items():
        (root / "annotations" / old).rename(root / "annotations" / new)
    (root / "annotations" / "captions.json").write_text('{"images": [], "annotations": [{"caption": "a cat"}]}')
    message = error_message(root)
    assert "has several files in COCO format (annotations/train.json, annotations/val.json); rename the" in message
    for split in ("train", "val"):
        assert f"annotations/instances_{split}.json" in message and f"{split}/" in message
        (root / f"annotations/{split}.json").rename(root / f"annotations/instances_{split}.json")
        (root / f"{split}2017").rename(root / split)
    assert len(records(CUSTOM_TRAIN, root)) > 0 and len(records(CUSTOM_VAL, root)) > 0


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["settings.json", "data.yaml"], "YOLO"),
        (["data.yaml", "train/labels/a.txt"], "YOLO"),
        (["labels/train/a.txt"], "YOLO"),
        (["Annotations/a.xml"], "Pascal VOC"),
        (["train/a.xml", "train/a.jpg"], "Pascal VOC"),
    ],
    ids=["broken_json", "yolo", "yolo_old", "voc", "voc_of_roboflow"],
)
def test_another_format_is_named(files, name, tmp_path):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert error_message(tmp_path) == (
        f"{tmp_path}: looks like {name} format; export it in COCO format from the labeling tool, or convert it"
    )


@pytest.mark.parametrize(
    ("layout", "expected"),
    [("custom", ["train2017"]), ("coco", ["train2017", "train", "images/train2017", "images/train"])],
)
def test_missing_images_folder_error_names_expected_paths(layout, expected, tmp_path):
    root = DRAWN[layout](tmp_path / "data")
    (root / "train2017").rename(root / "images")
    annotations = find_layout(root).splits[CUSTOM_TRAIN].annotations
    folders = " or ".join(str(root / folder) for folder in expected)
    assert error_message(root) == f"{annotations}: the folder of its images is missing; expected {folders}"
