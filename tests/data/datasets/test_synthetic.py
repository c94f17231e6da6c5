"""Drawn balloons: reproducible, inside the image, not hiding each other."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from d2_detr.data.datasets.synthetic import MAX_OVERLAP, draw_dataset, draw_image

SIZE = 32


@pytest.fixture(scope="module")
def drawn():
    """A few hundred images with their outlines."""
    rng = np.random.default_rng(5)
    return [draw_image(rng, SIZE) for _ in range(200)]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_drawn_dataset_is_determined_by_its_seed(tmp_path):
    for name, seed in {"first": 7, "again": 7, "other": 8}.items():
        draw_dataset(tmp_path / name, 3, size=SIZE, seed=seed)
    first, again, other = (content(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again and len(first) == 4
    assert all(first[name] != other[name] for name in first)


def test_larger_dataset_starts_with_the_same_images(tmp_path):
    for num_images in (2, 4):
        draw_dataset(tmp_path / str(num_images), num_images, size=SIZE)
    few, many = (content(tmp_path / name) for name in ("2", "4"))
    assert all(many[name] == few[name] for name in few if name.endswith(".jpg"))


def test_images_have_1_to_4_balloons_and_every_number_occurs(drawn):
    assert {len(outlines) for _, outlines in drawn} == {1, 2, 3, 4}


def test_outlines_are_inside_the_image_and_not_degenerate(drawn):
    for _, outlines in drawn:
        for outline in outlines:
            assert outline.shape == (36, 2) and outline.min() >= 0 and outline.max() <= SIZE
            assert (np.ptp(outline, 0) > SIZE * 0.08).all()


def test_balloons_overlap_up_to_the_bound(drawn):
    overlaps = [overlap(a, b) for _, outlines in drawn for a, b in itertools.combinations(outlines, 2)]
    assert MAX_OVERLAP / 2 < max(overlaps) <= MAX_OVERLAP + 1e-9


def overlap(a, b):
    """Intersection of the boxes of two outlines over the smaller box, one axis at a time."""
    intersection, areas = 1.0, [1.0, 1.0]
    for axis in (0, 1):
        (a0, a1), (b0, b1) = ((o[:, axis].min(), o[:, axis].max()) for o in (a, b))
        intersection *= max(0.0, min(a1, b1) - max(a0, b0))
        areas = [areas[0] * (a1 - a0), areas[1] * (b1 - b0)]
    return intersection / min(areas)


def test_topmost_balloon_is_bright_inside_its_outline(drawn):
    for image, outlines in drawn:
        x, y = outlines[-1].mean(0).astype(int)
        inside = np.asarray(image)[y - 1 : y + 2, x - 1 : x + 2].mean((0, 1))
        assert inside.max() > 220, "one channel of every balloon is 255, less the noise"


def test_via_entries_match_the_image_files(tmp_path):
    draw_dataset(tmp_path, 3, size=SIZE)
    via = json.loads((tmp_path / "via_region_data.json").read_text())
    images = sorted(tmp_path.glob("*.jpg"))
    assert [entry["filename"] for entry in via.values()] == [path.name for path in images]
    for path, (key, entry) in zip(images, via.items(), strict=True):
        assert entry["size"] == path.stat().st_size and key == f"{path.name}{entry['size']}"
        with Image.open(path) as image:
            assert image.size == (SIZE, SIZE) and image.mode == "RGB"


def test_annotations_are_the_outlines_to_a_tenth_of_a_pixel(tmp_path):
    draw_dataset(tmp_path, 1, size=SIZE, seed=3)
    _, outlines = draw_image(np.random.default_rng(3), SIZE)
    (entry,) = json.loads((tmp_path / "via_region_data.json").read_text()).values()
    shapes = [region["shape_attributes"] for region in entry["regions"].values()]
    assert len(shapes) == len(outlines)
    for shape, outline in zip(shapes, outlines, strict=True):
        written = np.stack([shape["all_points_x"], shape["all_points_y"]], 1)
        np.testing.assert_allclose(written, outline, atol=0.0501)
