"""VIA annotations as COCO: geometry against pycocotools, both VIA versions, and what each mistake is told."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask

from d2_detr.data.via import polygon_area, polygon_box, via_to_coco
from d2_detr.errors import InputError

SIZE = 100


@st.composite
def polygons(draw):
    """A star-shaped polygon (x0, y0, x1, y1, ...) inside a picture of SIZE x SIZE."""
    num_points = draw(st.integers(3, 12))
    fractions = st.floats(0, 0.4)
    angles = [2 * math.pi * (i + draw(fractions)) / num_points for i in range(num_points)]
    radii = [draw(st.floats(5, 49)) for _ in angles]
    points = [(50 + r * math.cos(a), 50 + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
    return [coordinate for point in points for coordinate in point]


def points_of(polygon):
    return list(zip(polygon[0::2], polygon[1::2], strict=True))


def flat(points):
    return [coordinate for point in points for coordinate in point]


@given(polygons())
def test_area_is_that_of_the_mask_to_within_the_pixels_of_the_outline(polygon):
    points = points_of(polygon)
    perimeter = sum(math.dist(points[i - 1], points[i]) for i in range(len(points)))
    area_of_mask = float(mask.area(mask.frPyObjects([polygon], SIZE, SIZE))[0])
    assert abs(polygon_area(polygon) - area_of_mask) <= perimeter


@pytest.mark.parametrize(
    ("polygon", "area", "box"),
    [
        ([0, 0, 4, 0, 4, 3, 0, 3], 12, [0, 0, 4, 3]),
        ([1, 1, 5, 1, 1, 4], 6, [1, 1, 4, 3]),
        ([0, 0, 4, 0, 4, 4, 2, 4, 2, 2, 0, 2], 12, [0, 0, 4, 4]),  # an L: 16 - 4
        ([2, 3, 2, 3, 2, 3], 0, [2, 3, 0, 0]),
    ],
    ids=["rectangle", "triangle", "concave", "point"],
)
def test_area_and_box_of_polygons_known_by_hand(polygon, area, box):
    assert polygon_area(polygon) == area and polygon_box(polygon) == box


@given(polygons(), st.floats(-500, 500), st.floats(-500, 500))
def test_translation_keeps_the_area_and_moves_the_box(polygon, dx, dy):
    moved = flat((x + dx, y + dy) for x, y in points_of(polygon))
    assert polygon_area(moved) == pytest.approx(polygon_area(polygon), abs=1e-6)
    x, y, width, height = polygon_box(polygon)
    assert polygon_box(moved) == pytest.approx([x + dx, y + dy, width, height], abs=1e-6)


@given(polygons(), st.integers(0, 11))
def test_neither_orientation_nor_starting_point_matters(polygon, start):
    points = points_of(polygon)
    start %= len(points)
    for same in (points[::-1], points[start:] + points[:start]):
        assert polygon_area(flat(same)) == pytest.approx(polygon_area(polygon), rel=1e-9)
        assert polygon_box(flat(same)) == polygon_box(polygon)


@given(polygons())
def test_box_is_the_smallest_that_holds_every_point(polygon):
    left, top, width, height = polygon_box(polygon)
    x, y = polygon[0::2], polygon[1::2]
    assert (min(x), min(y)) == (left, top)
    assert (max(x), max(y)) == pytest.approx((left + width, top + height))


# ---- whole files


def region(x=(1, 5, 5, 1), y=(2, 2, 8, 8), **changes):
    return {"shape_attributes": {"name": "polygon", "all_points_x": list(x), "all_points_y": list(y)} | changes}


def entry(name, *regions):
    return {"filename": name, "size": 7, "regions": {str(i): r for i, r in enumerate(regions)}}


ENTRIES = {
    "b.jpg7": entry("b.jpg", region(), region(x=(10, 20, 20, 10))),
    "c.jpg7": entry("c.jpg"),
    "a.jpg7": entry("a.jpg", region(x=(0, 9, 9, 0))),
}


def convert(via):
    return via_to_coco(via, "balloon", lambda name: {"a.jpg": (64, 48)}.get(name, (32, 24)), source="via.json")


def test_a_file_converts_to_these_pictures_annotations_and_categories():
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


def test_regions_in_a_list_as_of_via_2_give_the_same_as_in_a_dict():
    via_2 = {key: {**value, "regions": list(value["regions"].values())} for key, value in ENTRIES.items()}
    assert convert(via_2) == convert(ENTRIES)


def test_a_picture_without_the_field_regions_has_no_annotations():
    assert convert({"a.jpg7": {"filename": "a.jpg", "size": 7}})["annotations"] == []


@given(st.permutations(list(ENTRIES)))
def test_the_order_of_the_entries_does_not_matter(keys):
    assert convert({key: ENTRIES[key] for key in keys}) == convert(ENTRIES)


@given(st.lists(st.integers(0, 4), max_size=8))
def test_ids_count_from_1_without_gaps(counts):
    coco = convert({str(i): entry(f"{i}.jpg", *[region()] * count) for i, count in enumerate(counts)})
    assert [image["id"] for image in coco["images"]] == list(range(1, len(counts) + 1))
    assert [annotation["id"] for annotation in coco["annotations"]] == list(range(1, sum(counts) + 1))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({}, "'shape_attributes'"),
        ("text", "'shape_attributes'"),
        ({"shape_attributes": None}, "'name'"),
        ({"shape_attributes": {}}, "'name'"),
        (region(name="circle"), "'circle'"),
        ({"shape_attributes": {"name": "polygon", "all_points_y": [1, 2, 3]}}, "'all_points_x'"),
        ({"shape_attributes": {"name": "polygon", "all_points_x": [1, 2, 3]}}, "'all_points_y'"),
        (region(x=(1, 2, 3)), "has 3 and all_points_y 4"),
        (region(x=(1, 2), y=(1, 2)), "has 2"),
        (region(all_points_x=5), "all_points_x is not a list of numbers"),
        (region(x=(1, 5, None, 1)), "all_points_x is not a list of numbers"),
        (region(y=(1, 5, "7", 1)), "all_points_y is not a list of numbers"),
        (region(y=(1, 5, math.nan, 1)), "all_points_y is not a list of numbers"),
    ],
    ids=[
        "no_shape", "not_a_dict", "null_shape", "empty_shape", "circle", "no_x", "no_y", "x_and_y_differ", "two_points",
        "x_is_a_number", "null", "text", "nan",
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", [1, 2], ids=["via_1", "via_2"])
def test_a_bad_region_is_an_error_that_names_file_picture_region_and_reason(bad, reason, version):
    regions = {"0": region(), "1": bad} if version == 1 else [region(), bad]
    with pytest.raises(InputError) as error:
        convert(ENTRIES | {"d.jpg7": {"filename": "d.jpg", "regions": regions}})
    assert str(error.value).startswith("via.json: d.jpg: region 1: ") and reason in str(error.value)


@pytest.mark.parametrize(
    ("via", "message"),
    [
        ([entry("a.jpg")], "via.json: holds a list"),
        ({"_via_settings": {"ui": {}}}, "via.json: _via_settings: no field 'filename'"),
        ({"a.jpg7": ["a.jpg"]}, "via.json: a.jpg7: no field 'filename'"),
        ({"a.jpg7": {"filename": "a.jpg", "regions": 3}}, "via.json: a.jpg: the regions are a int"),
        ({"a.jpg7": {"filename": "a.jpg", "regions": None}}, "via.json: a.jpg: the regions are a NoneType"),
    ],
    ids=["a_list", "project_file", "entry_is_a_list", "regions_are_a_number", "regions_are_null"],
)
def test_a_bad_entry_is_an_error_that_names_file_and_entry(via, message):
    with pytest.raises(InputError) as error:
        convert(via)
    assert str(error.value).startswith(message)
