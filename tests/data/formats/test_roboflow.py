"""Roboflow's root category and the names of its augmented copies."""

import pytest

from d2_detr.data.formats.roboflow import original_image_name, without_roboflow_root


@pytest.mark.parametrize(
    ("file_name", "original"),
    [
        ("image-90_png.rf.03db537223f0999ab453d4b1bdd56439.jpg", "image-90_png"),
        ("train\\a.v2_jpg.rf.2kS8-a_b.jpg", "a.v2_jpg"),
        ("some/folder/a.rf.jpg", None),
        ("a.jpg", None),
        ("photos.rf.1/a.jpg", None),
    ],
    ids=["hash", "folder", "no_hash", "other", "folder_only"],
)
def test_augmented_copies_of_roboflow_have_the_original_name(file_name, original):
    assert original_image_name(file_name) == original


def roboflow(**changes):
    categories = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 3, "name": "cat", "supercategory": "animals"},
        {"id": 9, "name": "dog", "supercategory": "animals"},
    ]
    return {"images": [], "annotations": [{"category_id": 3}], "categories": categories} | changes


def test_the_root_category_is_removed():
    content = roboflow()
    assert [category["name"] for category in without_roboflow_root(content)["categories"]] == ["cat", "dog"]
    assert len(content["categories"]) == 3, "the content itself is not modified"


@pytest.mark.parametrize(
    "content",
    [
        roboflow(categories=[{"id": 3, "name": "cat"}]),
        roboflow(annotations=[{"category_id": "0"}]),
        roboflow(categories=roboflow()["categories"][:1]),
        roboflow(categories=[*roboflow()["categories"], {"id": 10, "name": "owl", "supercategory": "birds"}]),
        roboflow(categories=[]),
        roboflow(annotations=3),
        [],
    ],
    ids=["not_roboflow", "root_is_used", "root_only", "several_roots", "no_categories", "invalid", "list"],
)
def test_other_content_is_returned_unchanged(content):
    assert without_roboflow_root(content) is content
