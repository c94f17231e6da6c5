"""COCO annotation files: every dialect of ids is read, every mistake is named by file, entry and field."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from d2_detr.data.formats.coco import as_id, read_coco
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
    def read(content):
        path = tmp_path / "custom_train.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_coco(path, tmp_path)

    return read


# ---- ids


@pytest.mark.parametrize(
    "ids", [(3, 9), (0, 1), (1, 2), ("3", "9"), (3.0, 9.0), (9, 3), (0, 1000000)], ids=lambda ids: str(ids)
)
def test_category_ids_of_any_kind_become_contiguous_in_their_order(read, ids):
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
    ids=["zero", "strings", "none", "twice", "words"],
)  # fmt: skip
def test_annotations_are_numbered_from_1_whatever_ids_they_had(read, ids):
    annotations = [annotation(id=i) for i in ids]
    for entry in annotations:
        if entry["id"] is None:
            del entry["id"]
    assert [a["id"] for a in read(coco(annotations=annotations)).annotations] == [1, 2]


def test_image_ids_in_strings_of_digits_are_numbers_and_other_strings_stay(read):
    images = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in ("12", "img_7")]
    file = read(coco(images=images, annotations=[annotation(image_id=12), annotation(image_id="img_7")]))
    assert [image["id"] for image in file.images] == [12, "img_7"]
    assert [len(record["annotations"]) for record in file.dataset_dicts("", {3: 0, 9: 1})] == [1, 1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3), ("03", 3), (3.0, 3), ("a", "a"), (True, None), (3.5, None), ("", None), (None, None), ([], None)],
)
def test_what_is_an_id(value, expected):
    assert as_id(value) == expected and type(as_id(value)) is type(expected)


# ---- content


def test_detectron2s_dicts_have_pictures_boxes_classes_and_polygons(read):
    first, second = read(coco()).dataset_dicts("pictures", {3: 0, 9: 1})
    assert first["file_name"] == "pictures/a.png" and (first["height"], first["width"]) == (HEIGHT, WIDTH)
    (instance,) = first["annotations"]
    assert instance["bbox"] == BOX and instance["segmentation"] == [POLYGON] and instance["category_id"] == 0
    assert second["annotations"][0]["category_id"] == 1 and second["image_id"] == 2


def test_a_picture_without_objects_stays(read):
    assert [record["annotations"] for record in read(coco(annotations=[])).dataset_dicts("", {})] == [[], []]


def test_sizes_that_the_file_does_not_give_come_from_the_picture(read, tmp_path):
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "a.png")
    file = read(coco(images=[{"id": 1, "file_name": "a.png"}], annotations=[annotation()]))
    assert (file.images[0]["width"], file.images[0]["height"]) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    "segmentation",
    [None, [], {"size": [HEIGHT, WIDTH], "counts": [0, 10, WIDTH * HEIGHT - 10]}],
    ids=["null", "empty", "uncompressed_rle"],
)
def test_boxes_without_polygons_and_rles_are_read(read, segmentation):
    file = read(coco(annotations=[annotation(segmentation=segmentation)]))
    instance = file.dataset_dicts("", {3: 0, 9: 1})[0]["annotations"][0]
    assert ("segmentation" in instance) == bool(segmentation)
    if segmentation:
        assert isinstance(instance["segmentation"]["counts"], bytes | str)


def test_areas_and_crowds_that_are_not_given_are_filled_in(read):
    bare = {key: value for key, value in annotation().items() if key not in ("area", "iscrowd", "id")}
    (entry,) = read(coco(annotations=[bare])).annotations
    assert entry["area"] == 1200 and entry["iscrowd"] == 0


def test_a_box_that_sticks_out_is_read_as_it_is(read):
    (entry,) = read(coco(annotations=[annotation(bbox=[-5, 20, 200, 40])])).annotations
    assert entry["bbox"] == [-5, 20, 200, 40]


# ---- mistakes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [1, 2', "not a complete JSON file"),
        ("[]", "holds a list, not COCO's format"),
        ('{"a.jpg": {"filename": "a.jpg", "regions": {}}}', r"annotations of VIA.*tools/via_to_coco\.py"),
        ('{"_via_img_metadata": {}}', r"annotations of VIA.*tools/via_to_coco\.py"),
        ('{"images": [], "labels": []}', "no list 'annotations'.*found images, labels"),
        (coco(images=[]), "without images"),
        (coco(categories=[]), "without categories"),
        (coco(images=[7]), r"images\[0\] is a int"),
        (coco(categories=[{"id": "x", "name": "cat"}]), r"categories\[0\]: id 'x', expected a number"),
        (coco(categories=[{"name": "cat"}]), r"categories\[0\]: id None"),
        (coco(categories=[{"id": 1}]), r"categories\[0\] \(id 1\): no `name`"),
        (coco(categories=[{"id": 1, "name": "a"}, {"id": "1", "name": "b"}]), r"categories\[1\]: id 1 for a second"),
        (coco(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]), "two categories are called 'a'"),
        (coco(images=[{"id": 1}]), r"images\[0\]: file_name is None"),
        (coco(images=[{"file_name": "a"}]), r"images\[0\]: id is None"),
        (coco(images=coco()["images"] * 2), r"images\[2\] \(a\.png\): id 1 for a second time"),
        (coco(images=[coco()["images"][0] | {"width": 0}]), r"images\[0\] \(a\.png\): width 0, height 80"),
    ],
    ids=[
        "cut_short", "a_list", "via", "via_project", "another_format", "no_images", "no_categories", "image_number",
        "category_id", "no_category_id", "no_name", "category_twice", "name_twice", "no_file_name", "no_image_id",
        "image_twice", "no_width",
    ],
)  # fmt: skip
def test_a_file_with_something_wrong_is_named_with_entry_and_field(read, content, message):
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
        ({"bbox": [10, 10, 0, 5]}, "has no area; draw it anew or remove"),
        ({"bbox": [50, 50, -20, 10]}, "has a negative side"),
        ({"bbox": [100, 10, 20, 5]}, "lies outside of the picture, which is 100 x 80"),
        ({"bbox": [-30, 10, 20, 5]}, "lies outside of the picture"),
        ({"segmentation": [[1, 2, 3, 4]]}, "polygon of 2 points; three make the smallest"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "expected pairs of numbers"),
        ({"segmentation": [[1, 2, 3, "4", 5, 6]]}, "expected pairs of numbers"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "expected a list of polygons"),
        ({"segmentation": "rle"}, "expected a list of polygons"),
        ({"segmentation": [[200, 2, 230, 4, 250, 6]]}, "polygon outside of the picture"),
        ({"segmentation": {"size": [5, 5], "counts": "x"}}, r"RLE of size \[5, 5\], the picture is 80 high"),
    ],
    ids=[
        "image", "category", "no_category", "three_numbers", "no_box", "text", "nan", "no_area", "negative", "outside",
        "left_of_it", "two_points", "odd", "polygon_text", "flat", "segmentation_text", "polygon_outside", "rle_size",
    ],
)  # fmt: skip
def test_an_annotation_with_something_wrong_is_named_with_its_place_and_the_remedy(read, changes, message):
    annotations = [annotation(), annotation(id=41) | changes]
    with pytest.raises(InputError, match=rf"custom_train\.json: annotations\[1\] \(id 41\): .*{message}"):
        read(coco(annotations=annotations))


def test_all_mistakes_are_counted_and_the_first_are_shown(read):
    bad = [annotation(id=i, bbox=[1, 1, 0, 0]) for i in range(20)]
    with pytest.raises(InputError) as error:
        read(coco(annotations=bad + [annotation()] * 30))
    lines = str(error.value).splitlines()
    assert len(lines) == 6 and "annotations[4]" in lines[4] and lines[5].strip().startswith("and 15 more annotations")


# ---- corners instead of sizes


def corners_of(box):
    x, y, w, h = box
    return [x, y, x + w, y + h]


boxes_xywh = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 50), st.integers(5, 40), st.integers(5, 30)), min_size=1, max_size=12
)


@given(boxes_xywh)
def test_boxes_inside_their_pictures_are_never_taken_for_corners(tmp_path_factory, boxes):
    path = tmp_path_factory.mktemp("coco") / "a.json"
    path.write_text(json.dumps(coco(annotations=[annotation(bbox=list(box)) for box in boxes])))
    assert [a["bbox"] for a in read_coco(path, "").annotations] == [list(box) for box in boxes]


def test_corners_given_as_boxes_are_recognised(read):
    rng = np.random.default_rng(0)
    boxes = [[*rng.integers(0, 60, 2).tolist(), *rng.integers(5, 20, 2).tolist()] for _ in range(20)]
    annotations = [annotation(bbox=corners_of(box), segmentation=[]) for box in boxes]
    with pytest.raises(InputError, match=r"look like corners \[x0, y0, x1, y1\].*\[x, y, width, height\]"):
        read(coco(annotations=annotations))


def test_boxes_in_shares_of_the_picture_are_recognised(read):
    shares = [annotation(bbox=box, segmentation=[]) for box in ([0.1, 0.2, 0.5, 0.5], [0, 0, 1, 1])]
    with pytest.raises(InputError, match="look like shares of the picture, from 0 to 1; COCO's `bbox` is in pixels"):
        read(coco(annotations=shares))
    pixel = annotation(bbox=[0, 0, 1, 1], segmentation=[])
    assert read(coco(annotations=[pixel])).annotations[0]["bbox"] == [0, 0, 1, 1]
