"""The layouts that a dataset of one's own may have: found, read alike, left as they are, and what mistakes are told."""

import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from d2_detr.data.datasets import coco_files as coco_files_module
from d2_detr.data.datasets.classes import dataset_classes, dataset_label_map, resolve_num_classes
from d2_detr.data.datasets.coco_files import coco_files
from d2_detr.data.datasets.custom import TRAIN, VAL, register_custom
from d2_detr.data.datasets.layouts import LAYOUTS, find_layout
from d2_detr.data.datasets.synthetic import draw_dataset
from d2_detr.data.formats.panoptic_from_instances import make_panoptic
from d2_detr.utils.errors import InputError
from d2_detr.workflows.setup import load_config
from tests import shapes
from tests.tools.command_line import run

from detectron2.data import DatasetCatalog, MetadataCatalog

TOOLS = Path(__file__).parents[2] / "tools"
NAMES = ["disc", "square", "triangle"]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def said(monkeypatch):
    """The lines of the log."""
    lines = []
    monkeypatch.setattr(coco_files_module.logger, "info", lambda text, *args: lines.append(text % args))
    return lines


# ---- the same shapes in every layout


def as_custom(root):
    return shapes.draw_shapes(root)


def as_coco(root, annotations="instances_{}2017.json", pictures="{}2017"):
    shapes.draw_shapes(root)
    for split in ("train", "val"):
        file, folder = root / "annotations" / annotations.format(split), root / pictures.format(split)
        (root / f"annotations/custom_{split}.json").rename(file)
        folder.parent.mkdir(exist_ok=True)
        (root / f"{split}2017").rename(folder)
    return root


def as_roboflow(root, val="valid", made_up="shapes", first_id=1):
    """With its category 0, unless `made_up` is "", and those of the shapes from `first_id` on."""
    shapes.draw_shapes(root)
    ids = {old: new for new, old in enumerate(shapes.CATEGORIES, first_id)}
    for split, folder in (("train", "train"), ("val", val)):
        content = shapes.read(root, split)
        content["categories"] = [
            {"id": ids[c["id"]], "name": c["name"], "supercategory": made_up} for c in content["categories"]
        ]
        if made_up:
            content["categories"].insert(0, {"id": 0, "name": made_up, "supercategory": "none"})
        for annotation in content["annotations"]:
            annotation["category_id"] = ids[annotation["category_id"]]
        (root / f"{split}2017").rename(root / folder)
        write(content, root / folder / "_annotations.coco.json")
    shutil.rmtree(root / "annotations")
    return root


def as_via(root, file="via_region_data.json", attributes=lambda name: {"kind": name}):
    """`attributes` are those of a region, by the name of its shape."""
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


def objects(name):
    """What a dataset says of each picture, by the name of the file."""
    return {
        Path(record["file_name"]).name: [
            (a["bbox"], a["category_id"], a["segmentation"]) for a in record["annotations"]
        ]
        for record in DatasetCatalog.get(name)
    }


DRAWN = {"custom": as_custom, "coco": as_coco, "roboflow": as_roboflow, "via": as_via}
IDS = {"custom": (3, 7, 20), "coco": (3, 7, 20), "roboflow": (1, 2, 3), "via": (1, 2, 3)}


@pytest.mark.parametrize("layout", DRAWN)
def test_a_folder_in_any_layout_gives_the_same_objects(layout, tmp_path):
    register_custom(as_custom(tmp_path / "expected"))
    expected = {name: objects(name) for name in (TRAIN, VAL)}
    root = DRAWN[layout](tmp_path / "data")
    before = tree(root)
    assert find_layout(root).name == layout
    cfg = load_config("detr_r50_custom.yaml", [], str(root))
    assert cfg.DATASETS.TRAIN == (TRAIN,) and cfg.DATASETS.TEST == (VAL,) and resolve_num_classes(cfg) == 3
    for name in (TRAIN, VAL):
        assert objects(name) == expected[name]
        assert all(Path(record["file_name"]).is_file() for record in DatasetCatalog.get(name))
        assert dataset_classes(name) == NAMES and dataset_label_map(name).ids == IDS[layout]
        assert MetadataCatalog.get(name).image_root == str(Path(DatasetCatalog.get(name)[0]["file_name"]).parent)
    assert tree(root) == before, "nothing is written into the person's folder"


def test_of_several_layouts_in_one_folder_custom_is_taken(tmp_path):
    for draw in reversed(DRAWN.values()):
        draw(tmp_path / "one")
        shutil.copytree(tmp_path / "one", tmp_path / "all", dirs_exist_ok=True)
        shutil.rmtree(tmp_path / "one")
    assert find_layout(tmp_path / "all").name == "custom"


@pytest.mark.parametrize(
    ("annotations", "pictures"),
    [("instances_{}.json", "{}"), ("instances_{}.json", "images/{}"), ("instances_{}2017.json", "images/{}2017")],
)
def test_coco_has_its_files_in_several_places(annotations, pictures, tmp_path):
    load_config("", [], str(as_coco(tmp_path / "coco", annotations, pictures)))
    assert dataset_classes(TRAIN) == NAMES
    for name, split in ((TRAIN, "train"), (VAL, "val")):
        path = Path(DatasetCatalog.get(name)[0]["file_name"])
        assert path.is_file() and path.parent == tmp_path / "coco" / pictures.format(split)


@pytest.mark.parametrize("layout", DRAWN)
def test_registering_a_folder_reads_nothing(layout, tmp_path, monkeypatch):
    root = DRAWN[layout](tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", None)
        patch.setattr(Path, "open", None)
        register_custom(root)
    assert dataset_classes(VAL) == NAMES


@pytest.mark.parametrize("layout", DRAWN)
def test_the_log_says_once_what_was_found(layout, tmp_path, said):
    root = DRAWN[layout](tmp_path / "data")
    register_custom(root)
    for name in (TRAIN, VAL, TRAIN):
        DatasetCatalog.get(name)
    (found,) = [line for line in said if "layout" in line]
    assert not any("test/ is" in line for line in said), "there is none"
    splits = find_layout(root).splits
    assert found == (
        f"{root} has the layout `{layout}`: "
        f"custom_train is {splits[TRAIN].annotations.relative_to(root)} with the pictures in "
        f"{splits[TRAIN].pictures.name}/; "
        f"custom_val is {splits[VAL].annotations.relative_to(root)} with the pictures in {splits[VAL].pictures.name}/"
    )


@pytest.mark.parametrize("layout", DRAWN)
def test_validation_alone_is_enough_to_evaluate(layout, tmp_path):
    root = DRAWN[layout](tmp_path / "data")
    missing = find_layout(root).splits[TRAIN].annotations
    missing.unlink()
    load_config("", [], str(root))
    assert dataset_classes(VAL) == NAMES and dataset_label_map(VAL).ids == IDS[layout]
    with pytest.raises(FileNotFoundError) as error:
        DatasetCatalog.get(TRAIN)
    lacking = f"{missing}: no such file; {root} has the layout `{layout}`, and lacks this split"
    assert str(error.value) == f"{lacking}; tools/split_coco.py makes both of one annotation file"


@pytest.mark.parametrize("layout", DRAWN)
def test_the_panoptic_dataset_lies_beside_the_annotations_and_has_the_same_things(layout, tmp_path):
    root = DRAWN[layout](tmp_path / "data")
    load_config("detr_panoptic_r50_custom.yaml", [], str(root))
    for name in (TRAIN, VAL):
        with pytest.raises(FileNotFoundError) as error:
            dataset_classes(f"{name}_panoptic")
        make_panoptic(re.search(r"make_panoptic\.py (\S+\.json)", str(error.value)).group(1))  # as the message says
    for name in (TRAIN, VAL):
        assert dataset_classes(f"{name}_panoptic") == [*dataset_classes(name), "background"]
        things, same_things = (
            MetadataCatalog.get(n).thing_dataset_id_to_contiguous_id for n in (f"{name}_panoptic", name)
        )
        assert things == same_things, "so that AP means the same classes"
        pictures, same_pictures = ([r["file_name"] for r in DatasetCatalog.get(n)] for n in (f"{name}_panoptic", name))
        assert pictures == same_pictures


def test_panoptic_annotations_do_without_those_of_instances(tmp_path):
    root = as_custom(tmp_path / "coco")
    for name in (TRAIN, VAL):
        make_panoptic(root / f"annotations/{name}.json")
        (root / f"annotations/{name}.json").unlink()
    register_custom(root)
    assert dataset_classes(f"{VAL}_panoptic") == [*NAMES, "background"]


# ---- Roboflow


def roboflow_files(root):
    return [root / split / "_annotations.coco.json" for split in ("train", "valid")]


@pytest.mark.parametrize("made_up", ["shapes", "disc"], ids=["of_another_name", "called_like_a_class"])
def test_the_made_up_category_is_no_class(made_up, tmp_path, said):
    register_custom(as_roboflow(tmp_path / "data", made_up=made_up))
    assert dataset_classes(TRAIN) == dataset_classes(VAL) == NAMES
    assert (
        sum(f"category '{made_up}', above all others and without an object, is left out" in line for line in said) == 1
    )


def test_without_a_made_up_category_the_files_are_taken_as_they_are(tmp_path, cache):
    root = as_roboflow(tmp_path / "data", made_up="", first_id=0)
    assert list(coco_files(find_layout(root)).values()) == roboflow_files(root)
    register_custom(root)
    assert dataset_label_map(TRAIN).ids == (0, 1, 2) and dataset_classes(VAL) == NAMES


@pytest.mark.parametrize("split", [0, 1], ids=["train", "valid"])
@pytest.mark.parametrize("category_id", [0, "0"], ids=["number", "text"])
def test_a_category_that_is_used_in_one_split_is_a_class_in_both(split, category_id, tmp_path):
    root = as_roboflow(tmp_path / "data")
    change(roboflow_files(root)[split], lambda content: content["annotations"][0].update(category_id=category_id))
    register_custom(root)
    assert dataset_classes(TRAIN) == dataset_classes(VAL) == ["shapes", *NAMES]
    assert objects((TRAIN, VAL)[split])["00001.png"][0][1] == 0


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
    ids=["another_id", "not_at_the_top", "no_supercategory", "of_no_other", "not_of_all", "not_said", "not_first"],
)
def test_a_category_that_only_resembles_the_made_up_one_is_a_class(edit, tmp_path):
    root = as_roboflow(tmp_path / "data")
    for path in roboflow_files(root):
        change(path, lambda content: edit(content["categories"]))
    register_custom(root)
    assert len(dataset_classes(TRAIN)) == 4


def test_a_single_category_is_a_class(tmp_path):
    root = as_roboflow(tmp_path / "data")
    for path in roboflow_files(root):
        change(path, lambda content: content.update(categories=content["categories"][:1], annotations=[]))
    register_custom(root)
    assert dataset_classes(TRAIN) == ["shapes"]


@pytest.mark.parametrize("val", ["valid", "test"])
def test_the_test_split_is_not_used_unless_there_is_no_other(val, tmp_path, said):
    root = as_roboflow(tmp_path / "data", val=val)
    if val == "valid":
        shutil.copytree(root / "train", root / "test")
    register_custom(root)
    assert {Path(record["file_name"]).parent for record in DatasetCatalog.get(VAL)} == {root / val}
    lines = {"valid": "test/ is not used", "test": "There is no valid/, so test/ is the validation set"}
    assert [line for line in said if "test/ is" in line] == [lines[val]]


@pytest.mark.parametrize("made_up", ["shapes", ""], ids=["converted", "as_it_is"])
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["annotations"][2].update(bbox=[1, 2]), r": annotations\[2\] \(id 2\): bbox \[1, 2\]"),
        (lambda c: c["categories"][-1].update(name="star"), r": category 3 is 'star', .*train/_annotations"),
        (lambda c: c.pop("annotations"), ": no list 'annotations'"),
    ],
    ids=["annotation", "category", "section"],
)
def test_a_mistake_is_told_with_the_person_s_own_file(edit, message, made_up, tmp_path):
    root = as_roboflow(tmp_path / "data", made_up=made_up)
    change(roboflow_files(root)[1], edit)
    register_custom(root)
    with pytest.raises(InputError, match=message) as error:
        DatasetCatalog.get(VAL)
    own = str(roboflow_files(root)[1])
    assert str(error.value).startswith(f"{own}: ") and str(error.value).count(".json: ") == 1


# ---- VIA


def cached(root):
    coco_files_module._coco_files.cache_clear()
    return coco_files(find_layout(root))


def test_a_conversion_is_in_the_cache_under_the_hash_of_its_content(tmp_path, cache):
    root = as_via(tmp_path / "data")
    first = cached(root)
    assert set(first) == {TRAIN, VAL} and all(path.parent == cache / "datasets" for path in first.values())
    states = {path: path.stat() for path in first.values()}
    assert cached(root) == first and {path: path.stat() for path in first.values()} == states, "not written again"
    change(root / "val" / "via_region_data.json", lambda via: via.pop("00001.png7"))
    assert cached(root)[TRAIN] == first[TRAIN] and cached(root)[VAL] != first[VAL]


def test_a_file_that_was_corrected_is_converted_anew(tmp_path):
    root = as_via(tmp_path / "data")
    register_custom(root)
    assert len(DatasetCatalog.get(VAL)) == 3
    change(root / "val" / "via_region_data.json", lambda via: via.pop("00001.png7"))
    assert len(DatasetCatalog.get(VAL)) == 2


def test_regions_without_attributes_are_of_one_class_called_like_the_folder(tmp_path, said):
    for split, number in (("train", 3), ("val", 2)):
        draw_dataset(tmp_path / "balloon" / split, number, size=64)
    load_config("", [], f"{tmp_path}/balloon/train/..")
    assert dataset_classes(TRAIN) == dataset_classes(VAL) == ["balloon"]
    assert (len(DatasetCatalog.get(TRAIN)), len(DatasetCatalog.get(VAL))) == (3, 2)
    assert "All regions are of the class 'balloon': they have no attributes" in said


@pytest.mark.parametrize(
    "attributes",
    [lambda name: {"kind": name, "note": ""}, lambda name: {"kind": name} | ({"note": "?"} if name == "disc" else {})],
    ids=["the_other_is_empty", "some_have_another"],
)
def test_the_one_attribute_that_all_regions_have_is_the_class(attributes, tmp_path, said):
    register_custom(as_via(tmp_path / "data", attributes=attributes))
    assert dataset_classes(TRAIN) == NAMES
    assert "The class of a region is its attribute 'kind'" in said


def test_a_class_has_the_same_id_in_both_splits_whichever_has_it(tmp_path):
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
    register_custom(root)
    assert dataset_classes(TRAIN) == dataset_classes(VAL) == ["owl", "cat", "dog"]
    assert {o[1] for found in objects(TRAIN).values() for o in found} == {0}
    assert {o[1] for found in objects(VAL).values() for o in found} == {0, 1, 2}


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_regions_has_the_classes_of_the_other(split, tmp_path):
    root = as_via(tmp_path / "data")
    change(root / split / "via_region_data.json", lambda via: [entry.update(regions=[]) for entry in via.values()])
    register_custom(root)
    assert dataset_classes(TRAIN) == dataset_classes(VAL) == NAMES


def test_a_project_of_any_name_is_found_among_other_files_and_keeps_the_order_of_its_options(tmp_path):
    root = as_via(tmp_path / "data", file="mine.json")
    options = {"triangle": "", "disc": "", "square": "", "star": ""}
    for split in ("train", "val"):
        via = json.loads((root / split / "mine.json").read_text())
        declared = {"region": {"kind": {"type": "dropdown", "options": options}}}
        write({"_via_img_metadata": via, "_via_attributes": declared}, root / split / "mine.json")
        write({"camera": {"name": "mine"}}, root / split / "about.json")
        write([1, 2], root / split / "list.json")
    register_custom(root)
    assert dataset_classes(TRAIN) == dataset_classes(VAL) == ["triangle", "disc", "square", "star"]


def two_attributes(name):
    return {"kind": name, "colour": "red"}


def test_where_the_class_cannot_be_told_the_message_has_the_command_that_helps(tmp_path, monkeypatch):
    root = as_via(tmp_path / "data", attributes=two_attributes)
    register_custom(root)
    with pytest.raises(InputError) as error:
        DatasetCatalog.get(TRAIN)
    message = str(error.value)
    assert message.startswith(
        f"{root}/train/via_region_data.json: the regions have the attributes 'colour', 'kind'; say"
    )
    command = re.search(
        r"python (tools/via_to_coco\.py .*) \(or --class-name NAME for a single class\)", message
    ).group(1)
    command = command.replace("--class-attribute NAME", "--class-attribute kind").replace("A,B,C", ",".join(NAMES))
    for split in ("train", "val"):
        monkeypatch.setattr(sys, "argv", shlex.split(command.replace("train", split)))
        runpy.run_path(str(TOOLS / "via_to_coco.py"), run_name="__main__")
    assert find_layout(root).splits[VAL].annotations == root / "annotations" / "instances_val.json"
    assert dataset_classes(TRAIN) == NAMES and all(Path(r["file_name"]).is_file() for r in DatasetCatalog.get(VAL))


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
        r"^\S+/val/via_region_data\.json: 00001\.png: the regions are a str",
    ),
    "missing_picture": (
        lambda via: via.update(x={"filename": "x.png", "regions": []}),
        FileNotFoundError,
        r"^\S+/val/x\.png: no such picture",
    ),
    "outside": (
        lambda via: via["00001.png7"]["regions"].append(
            {
                "shape_attributes": {"name": "rect", "x": 100, "y": 1, "width": 5, "height": 5},
                "region_attributes": {"kind": "disc"},
            }
        ),
        InputError,
        r"^\S+/val/via_region_data\.json: 00001\.png: region \d: x 100 to 105, .* is outside of the picture of 64 x 64",
    ),
}


@pytest.mark.parametrize(("edit", "error", "message"), VIA_MISTAKES.values(), ids=VIA_MISTAKES)
def test_a_mistake_in_a_file_of_via_is_told_with_its_place(edit, error, message, tmp_path):
    root = as_via(tmp_path / "data")
    change(root / "val" / "via_region_data.json", edit)
    register_custom(root)
    with pytest.raises(error, match=message):
        DatasetCatalog.get(TRAIN)


def test_two_files_of_via_side_by_side_are_an_error_unless_one_has_its_usual_name(tmp_path):
    root = as_via(tmp_path / "data", file="a.json")
    shutil.copy(root / "train" / "a.json", root / "train" / "b.json")
    with pytest.raises(
        InputError, match=r"/train: a\.json, b\.json are all annotations of VIA; call the one to use via_"
    ):
        find_layout(root)
    (root / "train" / "b.json").rename(root / "train" / "via_region_data.json")
    assert find_layout(root).splits[TRAIN].annotations.name == "via_region_data.json"


def test_a_folder_with_a_json_file_for_each_picture_is_not_read(tmp_path):
    (tmp_path / "train").mkdir()
    for number in range(30):
        (tmp_path / "train" / f"{number}.json").write_text("broken")
    with pytest.raises(FileNotFoundError, match="nor annotations of another layout"):
        find_layout(tmp_path)


# ---- folders that are none


def message_of(root):
    register_custom(root)
    with pytest.raises(FileNotFoundError) as error:
        DatasetCatalog.get(TRAIN)
    return str(error.value)


def test_a_folder_in_no_layout_is_told_which_there_are_and_what_it_holds(tmp_path):
    for name in ("train", "labels", ".git"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for name in ("a.txt", "train/labels.json", ".git/x.json"):
        (tmp_path / "data" / name).write_text("{}")
    message = message_of(tmp_path / "data")
    assert message.startswith(
        f"{tmp_path}/data/annotations/custom_train.json: no such file, nor annotations of another"
    )
    assert message.endswith(f"; {tmp_path}/data holds labels/, train/, train/labels.json, a.txt")
    for name, places in LAYOUTS.items():
        assert f"`{name}` ({places[TRAIN].annotations[0]}, {places[VAL].annotations[0]}, " in message
    assert "custom_val.json, train2017/, val2017/)" in message and message.count("pictures beside them") == 2


def test_of_a_full_folder_a_part_is_named(tmp_path):
    for number in range(30):
        (tmp_path / f"{number:02}.jpg").touch()
    assert message_of(tmp_path).endswith("holds 00.jpg, 01.jpg, 02.jpg, 03.jpg, 04.jpg, 05.jpg, 06.jpg, 07.jpg, "
                                         "08.jpg, 09.jpg, ...")  # fmt: skip


@pytest.mark.parametrize(
    ("make", "state"),
    [(lambda p: None, "does not exist; give the folder"), (Path.touch, "is a file, not the folder of a dataset")],
    ids=["nothing", "file"],
)
def test_a_folder_that_is_none_is_told_so(make, state, tmp_path):
    make(tmp_path / "data")
    assert message_of(tmp_path / "data").startswith(f"{tmp_path}/data: {state}")


@pytest.mark.parametrize("layout", DRAWN)
def test_a_file_of_a_dataset_is_answered_with_its_folder(layout, tmp_path):
    root = DRAWN[layout](tmp_path / "data")
    for split in find_layout(root).splits.values():
        assert message_of(split.annotations).endswith(f": is a file of a dataset; give the folder of it, {root}")


def test_an_empty_folder_is_told_so(tmp_path):
    assert message_of(tmp_path).endswith(f"{tmp_path} is empty")


@pytest.mark.parametrize(
    ("place", "pictures"),
    [("annotations/instances_default.json", "images/default"), ("result.json", "images"), ("labels.json", ".")],
    ids=["cvat", "label_studio", "beside"],
)
def test_one_annotation_file_for_all_is_told_how_to_share_it_out(place, pictures, tmp_path):
    """The command that is told works, and what it makes is a dataset."""
    source, root = DRAWN["custom"](tmp_path / "drawn"), tmp_path / "my data"
    shutil.copytree(source / "train2017", root / pictures)
    (root / place).parent.mkdir(exist_ok=True)
    (source / "annotations/custom_train.json").rename(root / place)
    message = message_of(root)
    assert message.startswith(f"{root}: has one annotation file for all pictures; share them out: ")
    _, tool, *args = shlex.split(message.split("share them out: ")[1])
    assert tool == "tools/split_coco.py"
    status, output = run(tmp_path, "split_coco.py", *args)
    assert status == 0, output
    register_custom(args[-1])
    assert len(DatasetCatalog.get(TRAIN)) > 0


def test_several_annotation_files_are_told_what_to_call_them(tmp_path):
    """And then they are a dataset."""
    root = DRAWN["custom"](tmp_path / "data")
    for old, new in {"custom_train.json": "train.json", "custom_val.json": "val.json"}.items():
        (root / "annotations" / old).rename(root / "annotations" / new)
    (root / "annotations" / "captions.json").write_text('{"images": [], "annotations": [{"caption": "a cat"}]}')
    message = message_of(root)
    assert "has several files in COCO format (annotations/train.json, annotations/val.json); call the one" in message
    for split in ("train", "val"):
        assert f"annotations/instances_{split}.json" in message and f"{split}/" in message
        (root / f"annotations/{split}.json").rename(root / f"annotations/instances_{split}.json")
        (root / f"{split}2017").rename(root / split)
    register_custom(root)
    assert len(DatasetCatalog.get(TRAIN)) > 0 and len(DatasetCatalog.get(VAL)) > 0


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
def test_another_format_is_called_by_its_name(files, name, tmp_path):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert message_of(tmp_path) == (
        f"{tmp_path}: looks like {name}'s format; export it in COCO format where it was annotated, or convert it"
    )


@pytest.mark.parametrize(
    ("layout", "expected"),
    [("custom", ["train2017"]), ("coco", ["train2017", "train", "images/train2017", "images/train"])],
)
def test_annotations_without_a_folder_of_pictures_are_told_where_it_is_expected(layout, expected, tmp_path):
    root = DRAWN[layout](tmp_path / "data")
    (root / "train2017").rename(root / "pictures")
    annotations = find_layout(root).splits[TRAIN].annotations
    folders = " or ".join(str(root / folder) for folder in expected)
    assert message_of(root) == f"{annotations}: there is no folder with its pictures; expected {folders}"
