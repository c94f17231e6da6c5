"""A large file is read in pieces with the same result as a small one; whatever is unusual is left to `read_coco`."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2_detr.data.formats import coco_records
from d2_detr.data.formats.coco import read_coco
from d2_detr.data.formats.coco_pieces import NotDividedError, divide, parse_piece, read_without_annotations
from d2_detr.data.formats.coco_records import encode_coco
from d2_detr.structures.records import decode_record
from tests.data.formats.test_coco import BOX, HEIGHT, WIDTH, annotation, coco

from detectron2.structures import BoxMode

values = st.recursive(
    st.none() | st.integers(-99, 99) | st.text('{}[],":\\ annotations', max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("}{,]a", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(coco_records, "PIECE_SIZE", 300)
    monkeypatch.setattr(coco_records, "num_cores", lambda: 2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "custom_train.json"


def many(number=30):
    """Annotations that alternate between the images and differ."""
    rle = {"size": [HEIGHT, WIDTH], "counts": [0, 10, WIDTH * HEIGHT - 10]}
    segmentations = [[[10 + i, 20, 40.25, 20, 40, 60]] for i in range(number - 1)] + [rle]
    return [
        annotation(image_id=1 + i % 2, category_id=(3, 9)[i % 3 == 0], segmentation=segmentation, iscrowd=i % 2)
        for i, segmentation in enumerate(segmentations)
    ]


def read_both(path, content, **options):
    """Return the records of both ways, and the result of the one in pieces."""
    path.write_text(json.dumps(content, **options))
    whole = read_coco(path, "images")
    expected = whole.dataset_dicts("images", {category_id: i for i, category_id in enumerate(whole.categories)})
    for record in expected:
        for instance in record["annotations"]:
            if isinstance(rle := instance.get("segmentation"), dict):
                instance["segmentation"] = rle | {"counts": rle["counts"].decode()}
    encoded = encode_coco(path, "images")
    return expected, [decode_record(record) for record in encoded.records()], whole, encoded


@pytest.mark.parametrize("indent", [None, 1], ids=["one_line", "indented"])
@pytest.mark.parametrize("annotations_last", [True, False])
def test_pieces_have_the_records_of_the_whole_file(path, indent, annotations_last):
    content = coco(annotations=many())
    if annotations_last:
        content["annotations"] = content.pop("annotations")
    expected, records, whole, encoded = read_both(path, content, indent=indent)
    assert records == expected and len(records[0]["annotations"]) == 15
    assert encoded.categories == whole.categories and encoded.warning == ""
    assert isinstance(records[0]["annotations"][0]["bbox_mode"], BoxMode)


def test_images_without_objects_and_text_ids_are_kept(path):
    images = [*coco()["images"], {"id": "x7", "file_name": "Ballon é.png", "width": "9", "height": 8.0}]
    annotations = [annotation(image_id="2") for _ in range(9)]
    expected, records, *_ = read_both(path, coco(images=images, annotations=annotations))
    assert records == expected and [len(record["annotations"]) for record in records] == [0, 9, 0]


def test_dropped_annotations_have_the_same_warning(path):
    annotations = many(40)
    for i in (17, 18, 33):
        annotations[i]["bbox"] = [10, 10, 0, 5]
    expected, records, whole, encoded = read_both(path, coco(annotations=annotations))
    assert records == expected and encoded.warning == whole.warning
    assert "3 of 40 annotations are dropped" in whole.warning and "annotations[17]" in whole.warning


def test_corrected_areas_have_the_same_warning(path):
    annotations = many(40)
    for i, area in ((11, -1), (12, 0), (33, 1e11)):
        annotations[i]["area"] = area
    annotations[12]["bbox"] = [10, 10, 0, 5]
    *_, whole, encoded = read_both(path, coco(annotations=annotations))
    assert encoded.warning == whole.warning
    assert "2 of 40 annotations have an impossible `area`" in whole.warning
    assert "1 of 40 annotations are dropped" in whole.warning and "First annotations[11]" in whole.warning


@pytest.mark.parametrize(
    "changes",
    [
        {"annotations": [*many(), annotation(image_id=77)]},
        {"annotations": [*many(), annotation(iscrowd="0")]},
        {"annotations": [*many(), annotation(segmentation={"size": [HEIGHT, WIDTH], "counts": [7]})]},
        {"images": [*coco()["images"], {"id": 3, "file_name": "/etc/a.png", "width": WIDTH, "height": HEIGHT}]},
        {"annotations": [*many(), annotation(bbox=[1, 2, float("nan"), 4])]},
        {"annotations": [*many(), 7]},
        {"annotations": []},
        {"annotations": {"1": annotation()}},
        {"images": []},
        {"images": [{"id": 1, "file_name": "a.png"}]},
        {"categories": [{"id": 1}]},
        {"annotations": [annotation(bbox=[30, 30, 90, 70], segmentation=[]) for _ in range(9)]},
        {"annotations": [annotation(bbox=[0.1, 0.2, 1, 1], segmentation=[]) for _ in range(9)]},
    ],
    ids=[
        "image_id", "crowd", "rle", "outside", "nan", "no_object", "no_annotations", "dict", "no_images", "no_size",
        "no_name", "corners", "fractions",
    ],
)  # fmt: skip
def test_errors_are_left_to_the_other_way(path, changes):
    content = coco(annotations=many())
    path.write_text(json.dumps(content))
    assert encode_coco(path, path.parent)
    path.write_text(json.dumps(content | changes))
    assert encode_coco(path, path.parent) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"annotations": [{}]', '{"annotations": [{}, ]}'])
def test_other_text_is_not_divided(path, text):
    path.write_text(text)
    assert encode_coco(path, path.parent) is None


@given(st.lists(st.dictionaries(st.text("id{},", min_size=1, max_size=3), values, max_size=3), min_size=1), values)
def test_text_is_divided_correctly_or_not_at_all(annotations, other):
    content = {"info": other, "annotations": annotations, "categories": [other]}
    text = memoryview(json.dumps(content).encode())
    for piece_size in (1, 20):
        try:
            rest, spans = divide(text, piece_size)
            pieces = [parse_piece(text[start:end]) for start, end in spans]
        except NotDividedError:
            continue
        assert rest == content | {"annotations": []}
        assert [entry for piece in pieces for entry in piece] == annotations


def test_nested_objects_are_accepted_or_left_to_the_other_way(path):
    annotations = [entry | {"attributes": [{"a": 1}, {"b": "},{"}]} for entry in many()]
    path.write_text(json.dumps(coco(annotations=annotations)))
    assert encode_coco(path, "images") is None and len(read_coco(path, "images").annotations) == 30
    annotations = [entry | {"attributes": {"a": {"b": "}{"}}} for entry in many()]
    expected, records, *_ = read_both(path, coco(annotations=annotations))
    assert records == expected and records[0]["annotations"][0]["bbox"] == BOX


def test_categories_are_read_without_annotations(path):
    for annotations in (many(), []):
        content = coco(annotations=annotations)
        path.write_text(json.dumps(content))
        assert read_without_annotations(path) == content | {"annotations": []}
