"""Polygon, box and area of VIA shapes: against pycocotools, against each other, and computed by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask

from d2_detr.data.formats.via_shapes import NUM_VERTICES, ellipse_outline, outline, polygon_area, polygon_box

SIZE = 100


@st.composite
def polygons(draw):
    """A star-shaped polygon (x0, y0, x1, y1, ...) inside an image of SIZE x SIZE pixels."""
    num_points = draw(st.integers(3, 12))
    fractions = st.floats(0, 0.4)
    angles = [2 * math.pi * (i + draw(fractions)) / num_points for i in range(num_points)]
    radii = [draw(st.floats(5, 49)) for _ in angles]
    points = [(50 + r * math.cos(a), 50 + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
    return [coordinate for point in points for coordinate in point]


def vertices(polygon):
    return list(zip(polygon[0::2], polygon[1::2], strict=True))


def flat(points):
    return [coordinate for point in points for coordinate in point]


def perimeter(polygon):
    points = vertices(polygon)
    return sum(math.dist(points[i - 1], points[i]) for i in range(len(points)))


def mask_area(polygon, size=SIZE):
    return float(mask.area(mask.frPyObjects([polygon], size, size))[0])


@given(polygons())
def test_area_equals_the_mask_within_the_outline_pixels(polygon):
    assert abs(polygon_area(polygon) - mask_area(polygon)) <= perimeter(polygon)


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
def test_area_and_box_of_polygons_computed_by_hand(polygon, area, box):
    assert polygon_area(polygon) == area and polygon_box(polygon) == box


@given(polygons(), st.floats(-500, 500), st.floats(-500, 500))
def test_translation_keeps_the_area_and_moves_the_box(polygon, dx, dy):
    moved = flat((x + dx, y + dy) for x, y in vertices(polygon))
    assert polygon_area(moved) == pytest.approx(polygon_area(polygon), abs=1e-6)
    x, y, width, height = polygon_box(polygon)
    assert polygon_box(moved) == pytest.approx([x + dx, y + dy, width, height], abs=1e-6)


@given(polygons(), st.integers(0, 11))
def test_neither_orientation_nor_starting_point_matters(polygon, start):
    points = vertices(polygon)
    start %= len(points)
    for same in (points[::-1], points[start:] + points[:start]):
        assert polygon_area(flat(same)) == pytest.approx(polygon_area(polygon), rel=1e-9)
        assert polygon_box(flat(same)) == polygon_box(polygon)


@given(polygons())
def test_box_is_the_smallest_that_contains_all_points(polygon):
    left, top, width, height = polygon_box(polygon)
    x, y = polygon[0::2], polygon[1::2]
    assert (min(x), min(y)) == (left, top)
    assert (max(x), max(y)) == pytest.approx((left + width, top + height))


# ---- curves, rectangles and polylines

coordinates, lengths, angles = st.floats(-300, 300), st.floats(1, 300), st.floats(-7, 7)
inner_radii = st.floats(2, 49)


def via_outline(name, **fields):
    return outline({"name": name, **fields}, "via.json: a.jpg: region 0")


def test_a_circle_of_radius_300_covers_282743_square_pixels():
    circle = via_outline("circle", cx=350, cy=350, r=300)
    assert circle.area == pytest.approx(282743.34, abs=0.01)
    assert circle.box == [50, 50, 600, 600]
    assert abs(mask_area(circle.polygon, 700) - circle.area) <= perimeter(circle.polygon)


@given(inner_radii, inner_radii, angles)
def test_area_of_an_ellipse_equals_pi_rx_ry_and_its_mask(rx, ry, theta):
    ellipse = via_outline("ellipse", cx=50, cy=50, rx=rx, ry=ry, theta=theta)
    assert ellipse.area == pytest.approx(math.pi * rx * ry)
    assert polygon_area(ellipse.polygon) == pytest.approx(ellipse.area, rel=2e-3)
    assert abs(mask_area(ellipse.polygon) - ellipse.area) <= perimeter(ellipse.polygon)


@given(coordinates, coordinates, lengths, lengths, angles)
def test_box_of_a_rotated_ellipse_is_tight_to_2_per_mille(cx, cy, rx, ry, theta):
    ellipse = ellipse_outline(cx, cy, rx, ry, theta)
    left, top, width, height = ellipse.box
    inner_left, inner_top, inner_width, inner_height = polygon_box(ellipse.polygon)
    assert len(ellipse.polygon) == 2 * NUM_VERTICES
    for edge, inner, extent, inner_extent in (
        (left, inner_left, width, inner_width),
        (top, inner_top, height, inner_height),
    ):
        assert -1e-9 <= inner - edge <= 0.002 * extent
        assert -1e-9 <= edge + extent - (inner + inner_extent) <= 0.002 * extent


@given(coordinates, coordinates, lengths, angles)
def test_a_circle_is_an_ellipse_of_equal_radii_at_any_angle(cx, cy, r, theta):
    circle = via_outline("circle", cx=cx, cy=cy, r=r)
    ellipse = via_outline("ellipse", cx=cx, cy=cy, rx=r, ry=r, theta=theta)
    assert circle.box == pytest.approx(ellipse.box, abs=1e-9) and circle.area == ellipse.area


@pytest.mark.parametrize(
    ("theta", "box"),
    [
        ({}, [60, 90, 80, 20]),
        ({"theta": 0}, [60, 90, 80, 20]),
        ({"theta": math.pi / 2}, [90, 60, 20, 80]),
        ({"theta": math.pi}, [60, 90, 80, 20]),
        (
            {"theta": math.pi / 6},
            [100 - math.sqrt(1225), 100 - math.sqrt(475), 2 * math.sqrt(1225), 2 * math.sqrt(475)],
        ),
    ],
    ids=["none", "zero", "quarter", "half", "30_degrees"],
)
def test_box_of_an_ellipse_of_radii_40_and_10_by_hand(theta, box):
    assert via_outline("ellipse", cx=100, cy=100, rx=40, ry=10, **theta).box == pytest.approx(box)


def test_theta_rotates_clockwise_as_displayed():
    ellipse = ellipse_outline(0, 0, 40, 10, math.pi / 4)
    x, y = max(vertices(ellipse.polygon), key=lambda point: point[0])
    assert x > 25 and y > 25, "the right end is below the center"
    assert ellipse.polygon[:2] == pytest.approx([40 * math.sqrt(0.5)] * 2)


@given(coordinates, coordinates, lengths, lengths)
def test_a_rectangle_is_the_polygon_of_its_corners(x, y, width, height):
    rectangle = via_outline("rect", x=x, y=y, width=width, height=height)
    corners_x, corners_y = [x, x + width, x + width, x], [y, y, y + height, y + height]
    polygon = via_outline("polygon", all_points_x=corners_x, all_points_y=corners_y)
    assert rectangle.polygon == polygon.polygon
    assert rectangle.box == [x, y, width, height] == pytest.approx(polygon.box)
    assert rectangle.area == width * height == pytest.approx(polygon.area, rel=1e-6)


@given(polygons())
def test_a_polyline_is_closed_to_a_polygon(polygon):
    points = {"all_points_x": polygon[0::2], "all_points_y": polygon[1::2]}
    assert via_outline("polyline", **points) == via_outline("polygon", **points)
    assert via_outline("polyline", **points).polygon == polygon
