"""Polygons and RLEs that pycocotools cannot take, or would misread, are refused."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2_detr.data.formats.coco_segmentations import rle_counts, segmentation_problem
from d2_detr.structures.masks import to_rle

WIDTH, HEIGHT = 100, 80
NUM_PIXELS = WIDTH * HEIGHT
SIZE_HW = [HEIGHT, WIDTH]


@st.composite
def masks(draw):
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    shares = st.sampled_from([0, 0.01, 0.5, 0.99, 1])
    return np.random.default_rng(draw(st.integers(0, 99))).random((height, width)) < draw(shares)


def compressed(counts, size_hw=SIZE_HW):
    return mask_util.frPyObjects({"size": size_hw, "counts": counts}, *size_hw)["counts"].decode()


@given(masks())
def test_counts_of_a_compressed_rle_are_its_run_lengths(mask):
    pixels = mask.flatten(order="F")
    starts = np.flatnonzero(np.diff(pixels, prepend=False))
    expected = np.diff([0, *starts, pixels.size])
    text = mask_util.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    assert rle_counts(text).tolist() == expected.tolist()


# pycocotools reserves 6 characters for a count, and would write beyond them for larger ones.
@given(st.lists(st.integers(0, 2**29 - 1), min_size=1, max_size=9))
def test_large_counts_are_decoded(counts):
    assert rle_counts(compressed(counts)).tolist() == counts


@pytest.mark.parametrize("form", [list, compressed])
@pytest.mark.parametrize(
    "counts", [[10, 90], [NUM_PIXELS + 1], [0, NUM_PIXELS, 5], [10], [2**32 - 1, 2]],
    ids=["short", "one_too_long", "long", "one_count", "overflow"],
)  # fmt: skip
def test_rles_of_another_number_of_pixels_are_refused(form, counts):
    problem = segmentation_problem({"size": SIZE_HW, "counts": form(counts)}, (WIDTH, HEIGHT))
    assert f"is an RLE of {sum(counts)} pixels, the image has 100 x 80 = 8000" in problem


@pytest.mark.parametrize(
    "counts",
    [
        [[10], 7990], [-10, 8010], [None, 8000], [10**400, 8000], [True, 7999], [8000.0], [2**32, 0], [], "", "é", "`",
        "P", "oooooooo0", " 1", "\0", "O8000",
    ],
    ids=[
        "nested", "negative", "null", "googol", "bool", "float", "33_bits", "empty_list", "empty", "not_ascii",
        "continues", "continues_too", "eight_characters", "space", "nul", "negative_count",
    ],
)  # fmt: skip
def test_damaged_counts_are_refused(counts):
    problem = segmentation_problem({"size": SIZE_HW, "counts": counts}, (WIDTH, HEIGHT))
    assert problem.startswith("segmentation is an RLE ")


@given(st.text("".join(map(chr, range(40, 120))), max_size=12) | st.text(max_size=4))
def test_accepted_counts_are_those_of_pycocotools(text):
    counts = rle_counts(text)
    if counts is not None and counts.min() >= 0 and (total := int(counts.sum())) < 1_000_000:
        expected = np.repeat(np.arange(len(counts)) % 2, counts)
        decoded = mask_util.decode({"size": [total, 1], "counts": text}).ravel() if total else []
        np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("x", [1e7, 4.3e8, 1e9, -1e9])
@pytest.mark.parametrize("first", [(10, 10), (-5, 10)], ids=["starts_inside", "starts_outside"])
def test_polygons_far_beyond_the_image_are_refused(x, first):
    problem = segmentation_problem([[*first, x, 20, 20, 60]], (WIDTH, HEIGHT))
    assert "the outline of a polygon is" in problem and "100 x 80" in problem


def test_zigzags_without_end_are_refused():
    zigzag = [coordinate for i in range(4000) for coordinate in (i % 2 * WIDTH, i % HEIGHT)]
    assert "the outline of a polygon is" in segmentation_problem([zigzag], (WIDTH, HEIGHT))


@pytest.mark.parametrize("scale", [1, 3, 40])
def test_polygons_that_reach_beyond_the_image_are_accepted(scale):
    angles = np.linspace(0, 2 * np.pi, 400)
    circle = np.stack([50 + scale * WIDTH * np.cos(angles), 40 + scale * WIDTH * np.sin(angles)], 1)
    polygon = circle.ravel().tolist()
    assert segmentation_problem([polygon], (WIDTH, HEIGHT)) == ""
    assert mask_util.decode(to_rle([polygon], SIZE_HW)).any()
