"""VIA annotations converted to COCO: the three kinds of file, shapes, classes, errors."""

import math
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2_detr.data.formats import via as module
from d2_detr.data.formats.via import is_via, parse_via, via_entries, via_to_coco
from d2_detr.data.formats.via_shapes import NUM_VERTICES
from d2_detr.utils.errors import InputError


def region(x=(1, 5, 5, 1), y=(2, 2, 8, 8), **changes):
    return {"shape_attributes": {"name": "polygon", "all_points_x": list(x), "all_points_y": list(y)} | changes}


def shape(name, **fields):
    return {"name": name, **fields}


def shaped(name, **fields):
    return {"shape_attributes": shape(name, **fields)}


def labeled(**attributes):
    return {**region(), "region_attributes": attributes}


def entry(name, *regions):
    return {"filename": name, "size": 7, "regions": {str(i): r for i, r in enumerate(regions)}}


def as_via_2(via_1):
    return {key: {**value, "regions": list(value["regions"].values())} for key, value in via_1.items()}


def as_project(via_1, **attributes):
    """A project file of VIA 2 that declares `attributes` for regions."""
    return {
        "_via_settings": {"ui": {}, "core": {"default_filepath": ""}, "project": {"name": "balloons"}},
        "_via_img_metadata": as_via_2(via_1),
        "_via_attributes": {"region": attributes, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(via_1),
    }


def dropdown(*options):
    return {"type": "dropdown", "description": "", "options": {o: o.title() for o in options}, "default_options": {}}


ENTRIES = {
    "b.jpg7": entry("b.jpg", region(), region(x=(10, 20, 20, 10))),
    "c.jpg7": entry("c.jpg"),
    "a.jpg7": entry("a.jpg", region(x=(0, 9, 9, 0))),
}


def convert(via, **classes):
    size = {"a.jpg": (64, 48)}
    with patch.object(module, "image_size", lambda path: size.get(path.name, (32, 24))):
        return via_to_coco(parse_via(via, "via.json"), Path(), **(classes or {"class_name": "balloon"}))


def error_message(via, **classes):
    with pytest.raises(InputError) as error:
        convert(via, **classes)
    return str(error.value)


def test_images_annotations_and_categories_of_a_file():
    coco = convert(ENTRIES)
    assert coco["categories"] == [{"id": 1, "name": "balloon"}]
    assert coco["images"] == [
        {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48},
        {"id": 2, "file_name": "b.jpg", "width": 32, "height": 24},
        {"id": 3, "file_name": "c.jpg", "width": 32, "height": 24},
    ]
    assert [a["image_id"] for a in coco["annotations"]] == [1, 2, 2]
    assert coco["annotations"][2] == {
        "id": 3,
        "image_id": 2,
        "category_id": 1,
        "segmentation": [[10.0, 2.0, 20.0, 2.0, 20.0, 8.0, 10.0, 8.0]],
        "bbox": [10.0, 2.0, 10.0, 6.0],
        "area": 60.0,
        "iscrowd": 0,
    }


positions, sizes = st.integers(0, 20), st.integers(1, 30)
any_region = st.builds(
    lambda attributes, form: {"shape_attributes": form, "region_attributes": attributes},
    st.fixed_dictionaries({"kind": st.sampled_from(["cat", "dog", "owl"])}),
    st.one_of(
        st.builds(shape, st.just("rect"), x=positions, y=positions, width=sizes, height=sizes),
        st.builds(shape, st.just("circle"), cx=positions, cy=positions, r=sizes),
        st.builds(shape, st.just("ellipse"), cx=positions, cy=positions, rx=sizes, ry=sizes, theta=st.floats(-7, 7)),
        st.just(region()["shape_attributes"]),
    ),
)


@given(st.lists(st.lists(any_region, max_size=3), max_size=4))
def test_the_three_kinds_of_file_convert_alike(regions_per_image):
    via_1 = {f"{i}.jpg7": entry(f"{i}.jpg", *regions) for i, regions in enumerate(regions_per_image)}
    options = {"class_attribute": "kind", "classes": ["dog", "cat", "owl"]}
    coco = convert(via_1, **options)
    assert len(coco["annotations"]) == sum(map(len, regions_per_image))
    assert coco == convert(as_via_2(via_1), **options) == convert(as_project(via_1), **options)


def test_every_shape_is_converted():
    regions = [
        shaped("rect", x=1, y=2, width=3, height=4),
        shaped("circle", cx=10, cy=12, r=5),
        shaped("ellipse", cx=10, cy=12, rx=5, ry=2),
        shaped("polyline", all_points_x=[0, 4, 4], all_points_y=[0, 0, 4]),
    ]
    annotations = convert({"b.jpg7": entry("b.jpg", *regions)})["annotations"]
    assert [annotation["bbox"] for annotation in annotations] == [
        [1, 2, 3, 4], [5, 7, 10, 10], [5, 10, 10, 4], [0, 0, 4, 4]
    ]  # fmt: skip
    assert [annotation["area"] for annotation in annotations] == pytest.approx([12, 25 * math.pi, 10 * math.pi, 8])
    assert [len(annotation["segmentation"][0]) // 2 for annotation in annotations] == [4, NUM_VERTICES, NUM_VERTICES, 3]


def test_an_image_without_regions_has_no_annotations():
    assert convert({"a.jpg7": {"filename": "a.jpg", "size": 7}})["annotations"] == []


@given(st.permutations(list(ENTRIES)))
def test_the_order_of_the_entries_does_not_matter(keys):
    assert convert({key: ENTRIES[key] for key in keys}) == convert(ENTRIES)


@given(st.lists(st.integers(0, 4), max_size=8))
def test_ids_count_from_1_without_gaps(counts):
    coco = convert({str(i): entry(f"{i}.jpg", *[region()] * count) for i, count in enumerate(counts)})
    assert [image["id"] for image in coco["images"]] == list(range(1, len(counts) + 1))
    assert [annotation["id"] for annotation in coco["annotations"]] == list(range(1, sum(counts) + 1))


# ---- at the border of an image of 32 x 24 pixels


@pytest.mark.parametrize(
    ("x", "y", "inside"),
    [
        (-9, 5, True), (31, 5, True), (5, -9, True), (5, 23, True),
        (-10, 5, False), (32, 5, False), (5, -10, False), (5, 24, False),
    ],
    ids=[f"{side}_{where}" for where in ("out_of_bounds", "outside") for side in ("left", "right", "top", "bottom")],
)  # fmt: skip
def test_a_shape_outside_its_image_is_an_error(x, y, inside):
    via = {"b.jpg7": entry("b.jpg", shaped("rect", x=x, y=y, width=10, height=10))}
    if inside:
        assert convert(via)["annotations"][0]["bbox"] == [x, y, 10, 10], "not clipped"
    else:
        message = error_message(via)
        assert message.startswith(f"via.json: b.jpg: region 0: x {x} to {x + 10}, y {y} to {y + 10} is outside")
        assert "32 x 24" in message


# ---- classes


def category_ids(coco):
    return [annotation["category_id"] for annotation in coco["annotations"]]


def names(coco):
    assert [category["id"] for category in coco["categories"]] == list(range(1, len(coco["categories"]) + 1))
    return [category["name"] for category in coco["categories"]]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["dog", "cat", "dog"], [2, 1, 2]),
        ([{"dog": True}, {"cat": True, "dog": False}, {"dog": True}], [2, 1, 2]),
        ([" dog", "cat\n", "dog "], [2, 1, 2]),
    ],
    ids=["text", "checkbox", "whitespace"],
)
def test_an_attribute_holds_the_class(values, found):
    coco = convert({"b.jpg7": entry("b.jpg", *(labeled(kind=value) for value in values))}, class_attribute="kind")
    assert category_ids(coco) == found and names(coco) == ["cat", "dog"]


KINDS = {"b.jpg7": entry("b.jpg", labeled(kind="dog", color="red"), labeled(kind="cat", color="blue"))}


@pytest.mark.parametrize(
    ("via", "classes", "order"),
    [
        (KINDS, ["owl", "dog", "cat"], ["owl", "dog", "cat"]),
        (KINDS, ["owl ", " dog", "cat"], ["owl", "dog", "cat"]),
        (as_project(KINDS, kind=dropdown("dog", "owl", "cat")), None, ["dog", "owl", "cat"]),
        (as_project(KINDS, kind=dropdown("dog", "owl", "cat")), ["cat", "dog"], ["cat", "dog"]),
        (as_project(KINDS, kind=dropdown("dog", "", "cat")), None, ["dog", "cat"]),
        (as_project(KINDS, kind={"type": "text"}, color=dropdown("red")), None, ["cat", "dog"]),
        (KINDS, None, ["cat", "dog"]),
    ],
    ids=["given", "given_with_whitespace", "options", "given_before_options", "empty_option", "no_options", "found"],
)
def test_classes_are_in_given_declared_or_alphabetical_order(via, classes, order):
    coco = convert(via, class_attribute="kind", classes=classes)
    assert names(coco) == order
    assert category_ids(coco) == [order.index("dog") + 1, order.index("cat") + 1]


@given(st.lists(st.text("abc", min_size=1), min_size=1))
def test_classes_of_regions_are_in_alphabetical_order(kinds):
    via = {"b.jpg7": entry("b.jpg", *(labeled(kind=kind) for kind in kinds))}
    assert names(convert(via, class_attribute="kind")) == sorted(set(kinds))


def test_all_regions_can_have_one_of_several_classes():
    coco = convert(KINDS, class_name="dog", classes=["cat", "dog"])
    assert names(coco) == ["cat", "dog"] and category_ids(coco) == [2, 2]


@given(st.permutations(["cat", "dog", "owl"]), st.lists(st.sampled_from(["cat", "dog", "owl"])))
def test_given_classes_do_not_depend_on_the_regions(classes, kinds):
    via = {"b.jpg7": entry("b.jpg", *(labeled(kind=kind) for kind in kinds))}
    coco = convert(via, class_attribute="kind", classes=classes)
    assert names(coco) == classes
    assert [classes[category_id - 1] for category_id in category_ids(coco)] == kinds


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"color": "red", "size": "3"}, "'kind' is missing, so the class is unknown"),
        ({"kind": "", "color": "red", "size": "3"}, "'kind' is empty"),
        ({"kind": " ", "color": "red", "size": "3"}, "'kind' is empty"),
        ({"kind": {}, "color": "red", "size": "3"}, "'kind' is empty"),
        ({"kind": {"cat": False}, "color": "red", "size": "3"}, "'kind' is empty"),
    ],
    ids=["missing", "empty", "whitespace", "empty_checkbox", "none_checked"],
)
def test_a_region_without_class_is_an_error_with_its_attributes(attributes, reason):
    message = error_message(
        {"b.jpg7": entry("b.jpg", labeled(kind="cat"), labeled(**attributes))}, class_attribute="kind"
    )
    assert message.startswith(f"via.json: b.jpg: region 1: attribute {reason}")
    assert message.endswith(", ".join(map(repr, attributes)))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"cat": True, "dog": True, "owl": False}, "has the values 'cat', 'dog'; choose one"),
        (3, "is 3, expected text"),
        (None, "is None, expected text"),
        (["cat"], "is ['cat'], expected text"),
    ],
    ids=["two_checked", "number", "null", "list"],
)
def test_a_value_other_than_one_class_is_an_error(value, reason):
    message = error_message({"b.jpg7": entry("b.jpg", labeled(kind=value))}, class_attribute="kind")
    assert message.startswith(f"via.json: b.jpg: region 0: attribute 'kind' {reason}")


@pytest.mark.parametrize(
    ("via", "classes"),
    [
        (KINDS, {"class_attribute": "kind", "classes": ["owl", "cat"]}),
        (as_project(KINDS, kind=dropdown("owl", "cat")), {"class_attribute": "kind"}),
        (KINDS, {"class_name": "dog", "classes": ["owl", "cat"]}),
    ],
    ids=["given", "declared", "one_for_all"],
)
def test_an_unknown_class_is_an_error_with_the_known_ones(via, classes):
    assert error_message(via, **classes).startswith(
        "via.json: b.jpg: region 0: 'dog' is not one of the classes 'owl', 'cat'"
    )


@pytest.mark.parametrize(
    ("via", "classes", "found"),
    [
        (KINDS, {"classes": ["cat", "dog"]}, "the attributes are 'color', 'kind'"),
        (KINDS, {"class_name": "cat", "class_attribute": "kind"}, "the attributes are 'color', 'kind'"),
        ({"b.jpg7": entry("b.jpg", labeled(kind="cat"))}, {"classes": None}, "the attributes are 'kind'"),
        (ENTRIES, {"classes": None}, "the regions have no attributes"),
    ],
    ids=["neither", "both", "one_attribute_is_not_guessed", "no_attributes"],
)
def test_exactly_one_of_name_and_attribute_is_required(via, classes, found):
    message = error_message(via, **classes)
    assert message.startswith("via.json: pass either one class for all regions (--class-name) or ")
    assert message.endswith(f"(--class-attribute); {found}")


@pytest.mark.parametrize(
    "classes",
    [{"class_name": " "}, {"classes": ["cat", "", "dog"]}, {"classes": ["cat", "dog", " cat"]}, {"classes": []}],
    ids=["whitespace", "empty", "duplicate", "none"],
)
def test_class_names_must_be_unique_and_not_empty(classes):
    arguments = classes if "class_name" in classes else {**classes, "class_attribute": "kind"}
    assert error_message(KINDS, **arguments).startswith("via.json: ")


def test_a_file_without_regions_needs_given_classes():
    empty = {"b.jpg7": entry("b.jpg")}
    assert "there are no regions to take the classes from" in error_message(empty, class_attribute="kind")
    assert (
        names(convert(empty, class_attribute="kind", classes=["cat"]))
        == ["cat"]
        == names(convert(empty, class_name="cat"))
    )


# ---- errors

CIRCLE, RECT = {"cx": 9, "cy": 9, "r": 5}, {"x": 1, "y": 1, "width": 5, "height": 5}
ELLIPSE = {"cx": 9, "cy": 9, "rx": 5, "ry": 3, "theta": 0.1}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({}, "'shape_attributes'"),
        ("text", "'shape_attributes'"),
        ({"shape_attributes": None}, "'name'"),
        ({"shape_attributes": {}}, "'name'"),
        ({**region(), "region_attributes": []}, "region_attributes is of type list"),
        (shaped("point", cx=1, cy=1), "'point', expected polygon, rect, circle, ellipse, polyline; draw"),
        (shaped("star"), "'star', expected polygon"),
        (shaped(["rect"]), "['rect'], expected polygon"),
        ({"shape_attributes": {"name": "polygon", "all_points_y": [1, 2, 3]}}, "'all_points_x'"),
        ({"shape_attributes": {"name": "polygon", "all_points_x": [1, 2, 3]}}, "'all_points_y'"),
        (region(x=(1, 2, 3)), "has 3 and all_points_y 4"),
        (region(x=(1, 2), y=(1, 2)), "has 2"),
        (region(x=(1, 2), y=(1, 2), name="polyline"), "has 2"),
        (region(x=(1.1, 2.2, 3.3), y=(1.1, 2.2, 3.3)), "all_points_x and all_points_y enclose no area"),
        (region(x=(1, 9, 1), y=(1, 9, 1), name="polyline"), "all_points_x and all_points_y enclose no area"),
        (region(all_points_x=5), "all_points_x is not a list of numbers"),
        (region(x=(1, 5, None, 1)), "all_points_x is not a list of numbers"),
        (region(y=(1, 5, "7", 1)), "all_points_y is not a list of numbers"),
        (region(y=(1, 5, True, 1)), "all_points_y is not a list of numbers"),
        (region(y=(1, 5, math.nan, 1)), "all_points_y is not a list of numbers"),
        (region(y=(1, 5, 10**400, 1)), "all_points_y is not a list of numbers"),
        (shaped("rect", x=1, y=1, width=5), "'height'"),
        (shaped("rect", **RECT | {"width": 0}), "width is 0, expected more than 0"),
        (shaped("rect", **RECT | {"height": -2.5}), "height is -2.5, expected more than 0"),
        (shaped("rect", **RECT | {"x": "1"}), "x is '1', expected a number"),
        (shaped("circle", cx=9, cy=9), "'r'"),
        (shaped("circle", **CIRCLE | {"r": 0}), "r is 0, expected more than 0"),
        (shaped("circle", **CIRCLE | {"r": math.inf}), "r is inf, expected a number"),
        (shaped("circle", **CIRCLE | {"cy": None}), "cy is None, expected a number"),
        (shaped("ellipse", cx=9, cy=9, r=5), "'rx'"),
        (shaped("ellipse", **ELLIPSE | {"rx": -5}), "rx is -5, expected more than 0"),
        (shaped("ellipse", **ELLIPSE | {"ry": False}), "ry is False, expected a number"),
        (shaped("ellipse", **ELLIPSE | {"theta": math.nan}), "theta is nan, expected a number"),
    ],
    ids=[
        "no_shape", "not_a_dict", "null_shape", "empty_shape", "attributes_are_a_list", "point", "unknown",
        "name_is_a_list", "no_x", "no_y", "x_and_y_differ", "two_points", "two_points_of_a_polyline", "line",
        "there_and_back", "x_is_a_number", "null", "text", "true", "nan", "huge", "no_height", "no_width",
        "negative_height", "rect_text", "no_radius", "radius_0", "radius_infinite", "center_null", "ellipse_with_r",
        "negative_radius", "radius_false", "theta_nan",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["via_1", "via_2", "project"])
def test_an_invalid_region_is_an_error_with_its_location(bad, reason, kind):
    via = ENTRIES | {"d.jpg7": entry("d.jpg", region(), bad)}
    message = error_message({"via_1": via, "via_2": as_via_2(via), "project": as_project(via)}[kind])
    assert message.startswith("via.json: d.jpg: region 1: ") and reason in message


@pytest.mark.parametrize(
    ("via", "message"),
    [
        ([entry("a.jpg")], "via.json: holds a list"),
        ({"_via_settings": {"ui": {}}}, "via.json: _via_settings: no field 'filename'"),
        ({"_via_img_metadata": [entry("a.jpg")]}, "via.json: _via_img_metadata is of type list"),
        ({"project": {}, "config": {}, "metadata": {}, "file": {}}, "via.json: a project of VIA 3, which cannot be"),
        ({"a.jpg7": ["a.jpg"]}, "via.json: a.jpg7: no field 'filename'"),
        ({"a.jpg7": entry("")}, "via.json: a.jpg7: filename is ''"),
        ({"a.jpg7": entry(None)}, "via.json: a.jpg7: filename is None"),
        ({"x": entry("https://a.org/a.jpg")}, "via.json: x: filename 'https://a.org/a.jpg' is a URL; download"),
        ({"x": entry("www.a.org/a.jpg")}, "via.json: x: filename 'www.a.org/a.jpg' is a URL; download"),
        ({"a.jpg7": entry("a.jpg"), "a.jpg8": entry("a.jpg")}, "via.json: a.jpg8: duplicate filename 'a.jpg'"),
        ({"a.jpg7": {"filename": "a.jpg", "regions": 3}}, "via.json: a.jpg: regions is of type int"),
        ({"a.jpg7": {"filename": "a.jpg", "regions": None}}, "via.json: a.jpg: regions is of type NoneType"),
    ],
    ids=[
        "list", "settings_only", "project_of_a_list", "via_3", "entry_is_a_list", "no_name", "null_name", "url",
        "www", "duplicate", "regions_are_a_number", "regions_are_null",
    ],
)  # fmt: skip
def test_an_invalid_entry_is_an_error_with_file_and_entry(via, message):
    assert error_message(via).startswith(message)


# ---- detection


@pytest.mark.parametrize(
    ("content", "num_entries"),
    [(ENTRIES, 3), (as_via_2(ENTRIES), 3), (as_project(ENTRIES), 3), (as_project({}), 0)],
    ids=["via_1", "via_2", "project", "empty_project"],
)
def test_annotations_of_via_are_recognized(content, num_entries):
    assert is_via(content) and len(via_entries(content)) == num_entries


@pytest.mark.parametrize(
    "content",
    [[], {}, "text", [entry("a.jpg")], {"images": [entry("a.jpg")], "annotations": []}],
    ids=["empty_list", "empty_object", "text", "list_of_entries", "coco"],
)
def test_other_content_is_not_taken_for_via(content):
    assert not is_via(content) and via_entries(content) == []


@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "x/../../a.jpg"])
def test_images_outside_the_folder_are_an_error(name):
    message = error_message({"a": entry(name, region())})
    assert message.startswith(f"via.json: the image {name!r} is outside the folder .; move it there")


@pytest.mark.parametrize(
    "far",
    [shaped("circle", cx=5, cy=5, r=1e8), shaped("rect", x=0, y=0, width=1e9, height=5), region(x=(0, 1e7, 9, 0))],
    ids=["circle", "rect", "polygon"],
)
def test_regions_far_beyond_the_image_are_an_error(far):
    message = error_message({"a": entry("a.jpg", region(), far)})
    assert message.startswith("via.json: a.jpg: region 1: the outline of a polygon is ") and "64 x 48 pixels" in message
