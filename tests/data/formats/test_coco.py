"""COCO annotation files: all dialects of ids are read; errors name file, entry and field."""

import copy
import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from d2_detr.data.formats.coco import read_coco
from d2_detr.data.formats.coco_sections import all_numbers, is_number, parse_id
from d2_detr.utils.errors import InputError

WIDTH, HEIGHT = 100, 80
BOX = [10.0, 20.0, 30.0, 40.0]
POLYGON = [10, 20, 40, 20, 40, 60, 10, 60]


def annotation(**changes):
    base = {
        "id": 5,
        "image_id": 1,
        "category_id": 3,
        "bbox": BOX,
        "segmentation": [POLYGON],
        "area": 1200,
        "iscrowd": 0,
    }
    return base | changes


def coco(**changes):
    base = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
            {"id": 2, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [annotation(), annotation(id=6, category_id=9, image_id=2)],
        "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}],
    }
    return copy.deepcopy(base | changes)


@pytest.fixture
def read(tmp_path):
    def read(content, **options):
        path = tmp_path / "custom_train.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_coco(path, tmp_path, **options)

    return read


# ---- ids


@pytest.mark.parametrize(
    "ids", [(3, 9), (0, 1), (1, 2), ("3", "9"), (3.0, 9.0), (9, 3), (0, 1000000)], ids=lambda ids: str(ids)
)
def test_category_ids_become_contiguous_in_their_order(read, ids):
    content = coco(
        categories=[{"id": ids[0], "name": "cat"}, {"id": ids[1], "name": "dog"}],
        annotations=[annotation(category_id=ids[0]), annotation(category_id=ids[1])],
    )
    file = read(content)
    names = list(file.categories.values())
    assert list(file.categories) == sorted(int(i) for i in ids)
    contiguous = {category_id: i for i, category_id in enumerate(file.categories)}
    classes = [a["category_id"] for a in file.dataset_dicts("", contiguous)[0]["annotations"]]
    assert [names[i] for i in classes] == ["cat", "dog"]


@pytest.mark.parametrize(
    "ids", [(0, 1), ("0", "1"), (None, None), (7, 7), ("a", "b")],
    ids=["zero", "strings", "none", "duplicate", "words"],
)  # fmt: skip
def test_annotations_are_renumbered_from_1(read, ids):
    annotations = [annotation(id=i) for i in ids]
    for entry in annotations:
        if entry["id"] is None:
            del entry["id"]
    assert [a["id"] for a in read(coco(annotations=annotations)).annotations] == [1, 2]


def test_image_ids_are_integers_if_they_are_digits(read):
    images = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in ("12", "img_7")]
    file = read(coco(images=images, annotations=[annotation(image_id=12), annotation(image_id="img_7")]))
    assert [image["id"] for image in file.images] == [12, "img_7"]
    assert [len(record["annotations"]) for record in file.dataset_dicts("", {3: 0, 9: 1})] == [1, 1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3), ("03", 3), (3.0, 3), ("a", "a"), (True, None), (3.5, None), ("", None), (None, None), ([], None)],
)
def test_ids_are_integers_or_text(value, expected):
    assert parse_id(value) == expected and type(parse_id(value)) is type(expected)


@pytest.mark.parametrize("value", [True, None, "1", float("nan"), float("inf"), 10**400, [1]], ids=lambda v: str(v)[:5])
def test_other_values_are_not_numbers(value):
    assert not is_number(value)
    assert is_number(0) and is_number(-2.5)


@pytest.mark.parametrize("value", [2**63, -(2**63), 1e30, str(2**63)], ids=["integer", "negative", "float", "text"])
def test_ids_have_at_most_64_bits(read, value):
    assert parse_id(value) in (None, value) and parse_id(2**63 - 1) == 2**63 - 1
    number = value if isinstance(value, int | float) else int(value)
    with pytest.raises(
        InputError, match=r"images\[0\]: id is .*, expected a number or text of at most 64 bits; number"
    ):
        read(coco(images=[{"id": number, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}], annotations=[]))
    with pytest.raises(InputError, match=r"categories\[0\]: id .*, expected a number of at most 64 bits; number"):
        read(coco(categories=[{"id": number, "name": "cat"}]))


json_numbers = st.floats() | st.integers() | st.booleans() | st.none() | st.text(max_size=2) | st.just(10**400)


@given(st.lists(json_numbers) | st.lists(st.floats(-2e9, 2e9) | st.just(float("nan"))) | st.lists(st.floats()))
def test_all_numbers_agrees_with_is_number(values):
    assert all_numbers(values) == all(map(is_number, values))


@pytest.mark.parametrize("where", range(3))
@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), True, "1", None, 10**400, [1]], ids=lambda v: str(v)[:5]
)
def test_one_value_that_is_not_a_number_is_found(value, where):
    values = [1, 2.5, -3]
    assert all_numbers(values)
    values[where] = value
    assert not all_numbers(values)


# ---- content


def test_dataset_dicts_have_images_boxes_classes_and_polygons(read):
    first, second = read(coco()).dataset_dicts("images", {3: 0, 9: 1})
    assert first["file_name"] == "images/a.png" and (first["height"], first["width"]) == (HEIGHT, WIDTH)
    (instance,) = first["annotations"]
    assert instance["bbox"] == BOX and instance["segmentation"] == [POLYGON] and instance["category_id"] == 0
    assert second["annotations"][0]["category_id"] == 1 and second["image_id"] == 2


def test_images_without_objects_are_kept(read):
    assert [record["annotations"] for record in read(coco(annotations=[])).dataset_dicts("", {})] == [[], []]


def test_missing_sizes_are_read_from_the_images(read, tmp_path):
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "a.png")
    file = read(coco(images=[{"id": 1, "file_name": "a.png"}], annotations=[annotation()]))
    assert (file.images[0]["width"], file.images[0]["height"]) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    "segmentation",
    [None, [], {"size": [HEIGHT, WIDTH], "counts": [0, 10, WIDTH * HEIGHT - 10]}],
    ids=["null", "empty", "uncompressed_rle"],
)
def test_polygons_are_optional_and_rles_are_accepted(read, segmentation):
    file = read(coco(annotations=[annotation(segmentation=segmentation)]))
    instance = file.dataset_dicts("", {3: 0, 9: 1})[0]["annotations"][0]
    assert ("segmentation" in instance) == bool(segmentation)
    if segmentation:
        assert isinstance(instance["segmentation"]["counts"], bytes | str)


def test_missing_areas_and_crowd_flags_are_filled_in(read):
    bare = {key: value for key, value in annotation().items() if key not in ("area", "iscrowd", "id")}
    (entry,) = read(coco(annotations=[bare])).annotations
    assert entry["area"] == 1200 and entry["iscrowd"] == 0


def test_a_box_out_of_bounds_is_not_clipped(read):
    (entry,) = read(coco(annotations=[annotation(bbox=[-5, 20, 200, 40])])).annotations
    assert entry["bbox"] == [-5, 20, 200, 40]


# ---- errors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [1, 2', "not a complete JSON file"),
        ("[]", "holds a list, not COCO's format"),
        ('{"a.jpg": {"filename": "a.jpg", "regions": {}}}', r"VIA annotations, expected COCO format; .* via-to-coco "),
        ('{"_via_img_metadata": {}}', r"VIA annotations, expected COCO format; .* via-to-coco "),
        ('{"images": [], "labels": []}', "no list 'annotations'.*its keys are images, labels"),
        (coco(images=[]), "the list 'images' is empty"),
        (coco(categories=[]), "the list 'categories' is empty"),
        (coco(images=[7]), r"images\[0\] is of type int"),
        (coco(categories=[{"id": "x", "name": "cat"}]), r"categories\[0\]: id 'x', expected a number"),
        (coco(categories=[{"name": "cat"}]), r"categories\[0\]: id None"),
        (coco(categories=[{"id": 1}]), r"categories\[0\] \(id 1\): no `name`"),
        (coco(categories=[{"id": 1, "name": "a"}, {"id": "1", "name": "b"}]), r"categories\[1\]: duplicate id 1; give"),
        (coco(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]), "two categories are named 'a'"),
        (coco(images=[{"id": 1}]), r"images\[0\] \(id 1\): file_name is None"),
        (coco(images=[{"file_name": "a"}]), r"images\[0\]: id is None"),
        (coco(images=coco()["images"] * 2), r"images\[2\] \(a\.png\): duplicate id 1; give"),
        (coco(images=[coco()["images"][0] | {"width": 0}]), r"images\[0\] \(a\.png\): width 0, height 80"),
        (coco(images=[coco()["images"][0] | {"width": 100.5}]), r"images\[0\] \(a\.png\): width 100\.5, height 80"),
        (coco(images=[coco()["images"][0] | {"width": 10**9}]), r"images\[0\] \(a\.png\): .* more than 200,000,000"),
        (coco(images=[coco()["images"][0] | {"file_name": ""}]), r"images\[0\] \(id 1\): file_name is ''"),
        (coco(categories=[{"id": 1, "name": "\ud83d"}]), r"categories\[0\] \(id 1\): name .* is no valid Unicode"),
        ("[" * 200_000, "not a complete JSON file .nested too deeply"),
        (json.dumps(coco())[:-1] + f', "n": 1{"0" * 5000}}}', "not a complete JSON file .Exceeds the limit"),
    ],
    ids=[
        "truncated", "list", "via", "via_project", "another_format", "no_images", "no_categories", "image_number",
        "category_id", "no_category_id", "no_name", "duplicate_category", "duplicate_name", "no_file_name",
        "no_image_id", "duplicate_image", "no_width", "fraction_of_a_pixel", "too_many_pixels", "empty_file_name",
        "half_a_character", "nested", "digits",
    ],
)  # fmt: skip
def test_an_invalid_file_is_an_error_with_entry_and_field(read, content, message):
    with pytest.raises(InputError, match=rf"custom_train\.json: {message}"):
        read(content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": 77}, "image_id 77 is not among the images"),
        ({"category_id": 4}, r"unknown category_id 4; the file's categories are 3 \(cat\), 9 \(dog\)"),
        ({"category_id": None}, "unknown category_id None"),
        ({"bbox": [1, 2, 3]}, r"bbox \[1, 2, 3\], expected four numbers"),
        ({"bbox": None}, "bbox None, expected four numbers"),
        ({"bbox": [1, 2, "3", 4]}, "expected four numbers"),
        ({"bbox": [1, 2, float("nan"), 4]}, "expected four numbers"),
        ({"bbox": [50, 50, -20, 10]}, "has a negative side"),
        ({"segmentation": [[1, 2, 3, 4]]}, "polygon of 2 points; expected three or more"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "expected pairs of numbers"),
        ({"segmentation": [[1, 2, 3, "4", 5, 6]]}, "expected pairs of numbers"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "expected a list of polygons"),
        ({"segmentation": "rle"}, "expected a list of polygons"),
        ({"segmentation": [[200, 2, 230, 4, 250, 6]]}, "polygon outside the image of 100 x 80"),
        ({"segmentation": {"size": [5, 5], "counts": "x"}}, r"RLE of size \[5, 5\]; expected .* \[80, 100\]"),
        ({"segmentation": {"size": [80.0, 100.0], "counts": [8000]}}, r"RLE of size \[80\.0, 100\.0\]; expected"),
        ({"bbox": [0, 0, 2**64, 10**400]}, "bbox .*, expected four numbers"),
        ({"image_id": 10**400}, r"image_id 1000+\.\.\.0+ is not among"),
    ],
    ids=[
        "image", "category", "no_category", "three_numbers", "no_box", "text", "nan", "negative", "two_points", "odd",
        "polygon_text", "flat", "segmentation_text", "polygon_outside", "rle_size", "rle_float_size", "huge_box",
        "huge_id",
    ],
)  # fmt: skip
def test_an_invalid_annotation_is_an_error_with_index_and_remedy(read, changes, message):
    annotations = [annotation(), annotation(id=41) | changes]
    with pytest.raises(InputError, match=rf"custom_train\.json: annotations\[1\] \(id 41\): .*{message}"):
        read(coco(annotations=annotations))


def test_all_errors_are_counted_and_the_first_are_shown(read):
    bad = [annotation(id=i, bbox=[1, 1, -1, 0]) for i in range(20)]
    with pytest.raises(InputError) as error:
        read(coco(annotations=bad + [annotation()] * 30))
    lines = str(error.value).splitlines()
    assert len(lines) == 6 and "annotations[4]" in lines[4] and lines[5].strip().startswith("and 15 more annotations")


@pytest.mark.parametrize("value", [0, 1, False, True, 1.0], ids=str)
def test_crowd_flags_are_0_or_1(read, value):
    (entry,) = read(coco(annotations=[annotation(iscrowd=value)])).annotations
    assert entry["iscrowd"] == value and type(entry["iscrowd"]) is int


@pytest.mark.parametrize("value", ["0", "false", "", None, 2, -1, 0.5, [], [0]], ids=repr)
def test_other_crowd_flags_are_an_error(read, value):
    with pytest.raises(
        InputError, match=r"annotations\[0\] \(id 5\): iscrowd .*, expected 0 for an object or 1 for a cr"
    ):
        read(coco(annotations=[annotation(iscrowd=value)]))


@pytest.mark.parametrize("file_name", ["/etc/a.png", "../a.png", "b/../../a.png"])
def test_images_outside_the_folder_are_an_error(read, tmp_path, file_name):
    image = {"id": 1, "file_name": file_name, "width": WIDTH, "height": HEIGHT}
    file = read(coco(images=[image], annotations=[]))
    with pytest.raises(InputError, match=r"custom_train\.json: the image .* is outside the folder .*; move it there"):
        file.dataset_dicts(tmp_path, {})
    with pytest.raises(InputError, match=r"custom_train\.json: images\[0\] .*: the image .* is outside the folder "):
        read(coco(images=[{"id": 1, "file_name": file_name}], annotations=[]))  # its size would be read


@pytest.mark.parametrize(
    "file_name",
    ["b/\0.png", "é" * 200, "a/" * 600, "\ud83d.png"],
    ids=["nul", "long_name", "long_path", "half_a_character"],
)
def test_names_that_no_file_can_have_are_an_error(read, tmp_path, file_name):
    file = read(coco(images=[{"id": 1, "file_name": file_name, "width": WIDTH, "height": HEIGHT}], annotations=[]))
    with pytest.raises(InputError, match=r"custom_train\.json: the image .* has a name that no file can have; correct"):
        file.dataset_dicts(tmp_path, {})


@pytest.mark.parametrize("file_name", ["b/../a.png", "a..png", "{folder}/a.png"])
def test_other_ways_to_name_an_image_in_the_folder_are_accepted(read, tmp_path, file_name):
    name = file_name.format(folder=tmp_path)
    image = {"id": 1, "file_name": name, "width": WIDTH, "height": HEIGHT}
    (record,) = read(coco(images=[image], annotations=[])).dataset_dicts(tmp_path, {})
    assert record["file_name"] == str(tmp_path / name.replace("b/../", ""))


def test_a_byte_order_mark_is_accepted(tmp_path):
    path = tmp_path / "custom_train.json"
    path.write_text(json.dumps(coco()), encoding="utf-8-sig")
    assert len(read_coco(path, tmp_path).annotations) == 2


# ---- areas


@pytest.mark.parametrize("area", [0, -1, 1e11, 2**64, "12", float("nan")], ids=str)
@pytest.mark.parametrize(
    ("segmentation", "expected"), [([[10, 20, 40, 20, 40, 60]], 600), ([], 1200)], ids=["mask", "box"]
)
def test_an_impossible_area_is_replaced_with_a_warning(read, warnings, area, segmentation, expected):
    bad = annotation(id=42, segmentation=segmentation, area=area)
    file = read(coco(annotations=[annotation(), bad]))
    assert file.annotations[0]["area"] == 1200 and file.annotations[1]["area"] == pytest.approx(expected, rel=0.05)
    (warning,) = warnings()
    assert warning == file.warning
    assert "json: 1 of 2 annotations have an impossible `area`" in warning
    assert "First annotations[1] (id 42): area" in warning and warning.endswith("with a box of 30 x 40 pixels")


@pytest.mark.parametrize("area", [1, 600.5, 1200, 31 * 41, None], ids=str)
def test_an_area_that_is_possible_is_kept_without_a_warning(read, warnings, area):
    (entry,) = read(coco(annotations=[annotation(area=area)])).annotations
    assert entry["area"] == (1200 if area is None else area) and not warnings()


# ---- annotations that cannot be trained on

DEFECTS = {
    "zero_width": ([10, 10, 0, 5], "has zero width"),
    "zero_height": ([10, 10, 5, 0.0], "has zero height"),
    "below_a_pixel": ([10, 10, 5, 0.9], "has a height of less than a pixel"),
    "outside": ([100, 10, 20, 5], "is outside the image of 100 x 80 pixels"),
    "left_of_the_image": ([-30, 10, 20, 5], "is outside the image"),
}


@pytest.fixture
def warnings(caplog, monkeypatch):
    """Messages of the plugin's logger, which a training in the same process may have detached from the root logger."""
    monkeypatch.setattr(logging.getLogger("d2_detr"), "propagate", True)
    return lambda: caplog.messages


@pytest.mark.parametrize("defect", DEFECTS)
def test_untrainable_annotations_are_dropped_with_a_warning(read, warnings, defect):
    box, message = DEFECTS[defect]
    bad = annotation(id=42, bbox=box, segmentation=[[200, 2, 230, 4, 250, 6]])
    file = read(coco(annotations=[annotation(), bad, annotation(), bad]))
    assert [(a["id"], a["bbox"]) for a in file.annotations] == [(1, BOX), (2, BOX)]
    (warning,) = warnings()
    assert "custom_train.json: 2 of 4 annotations are dropped because they cannot be trained on" in warning
    assert f", first annotations[1] (id 42): bbox {box} {message}" in warning and "--strict" in warning


@pytest.mark.parametrize("defect", DEFECTS)
def test_untrainable_annotations_are_errors_in_strict_mode(read, warnings, defect):
    box, message = DEFECTS[defect]
    with pytest.raises(InputError) as error:
        read(coco(annotations=[annotation(), annotation(id=42, bbox=box)]), strict=True)
    assert f"json: annotations[1] (id 42): bbox {box} {message}" in str(error.value)
    assert str(error.value).endswith("; correct it or remove the annotation") and not warnings()


def test_a_box_of_one_pixel_is_kept_without_a_warning(read, warnings):
    (entry,) = read(coco(annotations=[annotation(bbox=[99, 79, 1, 1], area=1)])).annotations
    assert entry["bbox"] == [99, 79, 1, 1] and not warnings()


def test_untrainable_annotations_do_not_hide_errors(read):
    annotations = [annotation(bbox=[1, 1, 0, 5]), annotation(category_id=4)]
    with pytest.raises(InputError, match=r"annotations\[1\] \(id 5\): unknown category_id 4"):
        read(coco(annotations=annotations))


# ---- corners and fractions


def to_corners(box):
    x, y, w, h = box
    return [x, y, x + w, y + h]


boxes_xywh = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 50), st.integers(5, 40), st.integers(5, 30)), min_size=1, max_size=12
)


@given(boxes_xywh)
def test_boxes_inside_their_images_are_not_taken_for_corners(tmp_path_factory, boxes):
    path = tmp_path_factory.mktemp("coco") / "a.json"
    path.write_text(json.dumps(coco(annotations=[annotation(bbox=list(box)) for box in boxes])))
    assert [a["bbox"] for a in read_coco(path, "").annotations] == [list(box) for box in boxes]


@pytest.mark.parametrize("degenerate", [[], [[10, 20, 10, 40], [0, 0, 0, 0]]], ids=["all_valid", "some_degenerate"])
def test_corners_are_recognized(read, degenerate):
    rng = np.random.default_rng(0)
    boxes = [[*rng.integers(0, 60, 2).tolist(), *rng.integers(5, 20, 2).tolist()] for _ in range(20)]
    annotations = [annotation(bbox=box, segmentation=[]) for box in [*map(to_corners, boxes), *degenerate]]
    with pytest.raises(InputError, match=r"look like corners \[x0, y0, x1, y1\].*\[x, y, width, height\]"):
        read(coco(annotations=annotations))


def test_fractions_are_recognized(read):
    fractions = [annotation(bbox=box, segmentation=[]) for box in ([0.1, 0.2, 0.5, 0.5], [0, 0, 1, 1], [0.5, 1, 0, 0])]
    with pytest.raises(InputError, match="look like fractions of the image, from 0 to 1; COCO's `bbox` is in pixels"):
        read(coco(annotations=fractions))
    pixel = annotation(bbox=[0, 0, 1, 1], segmentation=[])
    assert read(coco(annotations=[pixel])).annotations[0]["bbox"] == [0, 0, 1, 1]
