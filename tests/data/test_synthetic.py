"""Drawn balloons: reproducible, inside the picture, not hiding each other."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from d2_detr.data.datasets.synthetic import MOST_OVERLAP, draw_dataset, draw_picture

SIZE = 32


@pytest.fixture(scope="module")
def drawn():
    """A few hundred pictures with their outlines."""
    rng = np.random.default_rng(5)
    return [draw_picture(rng, SIZE) for _ in range(200)]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in {"first": 7, "again": 7, "other": 8}.items():
        draw_dataset(tmp_path / name, 3, size=SIZE, seed=seed)
    first, again, other = (content(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again and len(first) == 4
    assert all(first[name] != other[name] for name in first)


def test_more_pictures_begin_with_the_same_ones(tmp_path):
    for num_pictures in (2, 4):
        draw_dataset(tmp_path / str(num_pictures), num_pictures, size=SIZE)
    few, many = (content(tmp_path / name) for name in ("2", "4"))
    assert all(many[name] == few[name] for name in few if name.endswith(".jpg"))


def test_pictures_have_1_to_4_balloons_and_every_number_occurs(drawn):
    assert {len(outlines) for _, outlines in drawn} == {1, 2, 3, 4}


def test_outlines_lie_inside_the_picture_and_have_an_area(drawn):
    for _, outlines in drawn:
        for outline in outlines:
            assert outline.shape == (36, 2) and outline.min() >= 0 and outline.max() <= SIZE
            assert (np.ptp(outline, 0) > SIZE * 0.08).all()


def test_no_two_balloons_overlap_more_than_the_bound_and_some_come_near_it(drawn):
    overlaps = [overlap(a, b) for _, outlines in drawn for a, b in itertools.combinations(outlines, 2)]
    assert MOST_OVERLAP / 2 < max(overlaps) <= MOST_OVERLAP + 1e-9


def overlap(a, b):
    """Intersection of the boxes of two outlines over the smaller box, one axis at a time."""
    intersection, areas = 1.0, [1.0, 1.0]
    for axis in (0, 1):
        (a0, a1), (b0, b1) = ((o[:, axis].min(), o[:, axis].max()) for o in (a, b))
        intersection *= max(0.0, min(a1, b1) - max(a0, b0))
        areas = [areas[0] * (a1 - a0), areas[1] * (b1 - b0)]
    return intersection / min(areas)


def test_the_topmost_balloon_is_bright_where_its_outline_says_it_is(drawn):
    for picture, outlines in drawn:
        x, y = outlines[-1].mean(0).astype(int)
        inside = np.asarray(picture)[y - 1 : y + 2, x - 1 : x + 2].mean((0, 1))
        assert inside.max() > 220, "one channel of every balloon is 255, less the noise"


def test_entries_say_the_size_of_the_files_and_name_each_picture_once(tmp_path):
    draw_dataset(tmp_path, 3, size=SIZE)
    via = json.loads((tmp_path / "via_region_data.json").read_text())
    pictures = sorted(tmp_path.glob("*.jpg"))
    assert [entry["filename"] for entry in via.values()] == [path.name for path in pictures]
    for path, (key, entry) in zip(pictures, via.items(), strict=True):
        assert entry["size"] == path.stat().st_size and key == f"{path.name}{entry['size']}"
        with Image.open(path) as picture:
            assert picture.size == (SIZE, SIZE) and picture.mode == "RGB"


def test_annotations_are_the_outlines_that_were_drawn_to_a_tenth_of_a_pixel(tmp_path):
    draw_dataset(tmp_path, 1, size=SIZE, seed=3)
    _, outlines = draw_picture(np.random.default_rng(3), SIZE)
    (entry,) = json.loads((tmp_path / "via_region_data.json").read_text()).values()
    shapes = [region["shape_attributes"] for region in entry["regions"].values()]
    assert len(shapes) == len(outlines)
    for shape, outline in zip(shapes, outlines, strict=True):
        written = np.stack([shape["all_points_x"], shape["all_points_y"]], 1)
        np.testing.assert_allclose(written, outline, atol=0.0501)
