"""COCO's panoptic format: JSON files and PNGs are read and written; errors name entry and field."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2_detr.data.formats.coco_panoptic import read_ids, read_panoptic, write_ids
from d2_detr.utils.errors import InputError
from tests.data.panoptic_sample import CAT, SKY, panoptic, segment


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "test_panoptic.json"
        path.write_text(json.dumps(content))
        return read_panoptic(path)

    return read


def test_contiguous_ids_count_things_first(read):
    file = read(panoptic())
    assert file.label_map.names == ("dog", "cat", "sea", "sky")
    assert file.contiguous_ids(things=True) == {4: 0, 9: 1} and file.contiguous_ids(things=False) == {0: 2, 1: 3}


def test_ids_in_strings_of_digits_are_integers(read):
    text = json.dumps(panoptic()).replace('"image_id": 8', '"image_id": "8"')
    text = text.replace('"category_id": 9', '"category_id": "9"').replace('"id": 300', '"id": "300"')
    (annotation,) = read(json.loads(text)).annotations
    cat = annotation["segments_info"][1]
    assert (annotation["image_id"], cat["id"], cat["category_id"]) == (8, CAT, 9)


@given(st.lists(st.integers(0, 2**24 - 1), min_size=1, max_size=12))
def test_ids_of_three_bytes_are_read_as_written(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp("ids") / "a.png"
    write_ids(np.array([ids, ids[::-1]]), path)
    assert read_ids(path).tolist() == [ids, ids[::-1]]


def test_a_missing_file_is_an_error_with_the_tool_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"own_panoptic\.json: no such.* make-panoptic \S*own\.json"):
        read_panoptic(tmp_path / "own_panoptic.json")


# ---- errors


def with_annotation(**changes):
    return panoptic(annotations=[panoptic()["annotations"][0] | changes])


def with_segment(**changes):
    return with_annotation(segments_info=[segment(SKY, 1), segment(CAT, 9) | changes])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds a list, not COCO's format with images, annotations"),
        (panoptic(annotations=[3]), r"annotations\[0\] is of type int"),
        (panoptic(categories=[]), "the list 'categories' is empty"),
        (panoptic(annotations=[]), "the list 'annotations' is empty"),
        (panoptic(categories=[{"id": 9, "name": "cat"}]), r"categories\[0\] \(cat\): isthing None.*make-panoptic "),
        (panoptic(categories=[{"id": "x", "name": "cat", "isthing": 1}]), r"categories\[0\]: id 'x', expected"),
        (panoptic(categories=[{"id": 9, "isthing": 1}]), r"categories\[0\] \(id 9\): no `name`"),
        (panoptic(categories=panoptic()["categories"] * 2), r"categories\[4\]: duplicate id 9"),
        (panoptic(categories=[{"id": i, "name": "cat", "isthing": 1} for i in (1, 2)]), "two categories .* 'cat'"),
        (panoptic(images=[{"id": 8, "file_name": "a.jpg"}]), r"images\[0\] \(a\.jpg\): width None, height None"),
        (panoptic(images=[{"id": 8, "width": 6, "height": 4}]), r"images\[0\] \(id 8\): file_name is None"),
        (panoptic(images=panoptic()["images"] * 2), r"images\[1\] \(sub/a\.jpg\): duplicate id 8"),
        (panoptic(annotations=panoptic()["annotations"] * 2), r"annotations\[1\]: duplicate image_id 8"),
        (with_annotation(image_id=9), r"annotations\[0\]: image_id 9 is not among the images"),
        (with_annotation(file_name=None), r"annotations\[0\] \(image_id 8\): no `file_name`"),
        (with_annotation(segments_info=None), r"annotations\[0\] \(a\.png\): no list `segments_info`"),
        (with_annotation(segments_info=[segment(SKY, 1)] * 2), r"annotations\[0\] \(a\.png\): two segments"),
        (with_segment(id=None), r"\(a\.png\): segments_info\[1\]: id None, expected the color"),
        (with_segment(id=0), r"segments_info\[1\]: id 0, expected the color"),
        (with_segment(id=1 << 24), r"segments_info\[1\]: id 16777216, expected the color"),
        (with_segment(category_id=77), r"segments_info\[1\]: unknown category_id 77"),
        (with_segment(bbox=[1, 2, 3]), r"segments_info\[1\]: bbox \[1, 2, 3\], expected four numbers"),
        (with_segment(bbox=[1, 2, 3, float("nan")]), r"segments_info\[1\]: bbox .*, expected four numbers"),
        (with_segment(bbox=[1, 2, -3, 1]), r"segments_info\[1\]: bbox .* has a negative side"),
        (with_segment(bbox=[9, 2, 3, 1]), r"segments_info\[1\]: bbox .* is outside the image of 6 x 4 pixels"),
        (with_segment(iscrowd="false"), r"segments_info\[1\]: iscrowd 'false', expected 0"),
    ],
    ids=[
        "list", "annotation_number", "no_categories", "no_annotations", "instances_only", "category_id", "no_name",
        "duplicate_category", "duplicate_name", "no_size", "no_file_name", "duplicate_image", "duplicate_annotation",
        "image_id", "no_png", "no_segments", "duplicate_segment", "no_segment_id", "void", "too_large_id",
        "unknown_category", "bbox", "nan", "negative", "outside", "crowd",
    ],
)  # fmt: skip
def test_an_invalid_file_is_an_error_with_entry_and_field(read, content, message):
    with pytest.raises(InputError, match=rf"panoptic\.json: .*{message}"):
        read(content)
