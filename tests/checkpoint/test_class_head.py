"""Rules for which row of a class head is which class."""

import pytest
import torch

from d2_detr.checkpoint.class_head import AmbiguousClassHead, ClassHead, read_head
from d2_detr.checkpoint.layouts import Format
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError

# Category ids of COCO's instance annotations: person 1 .. toothbrush 90.
COCO_IDS = [
    *range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70, *range(72, 83), *range(84, 91)
]  # fmt: skip
# Followed by the ids of its stuff categories: banner 92 .. rug 200.
PANOPTIC_IDS = [
    *COCO_IDS, 92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145, *range(147, 150),
    151, *range(154, 157), 159, 161, 166, 168, 171, *range(175, 179), 180, 181, *range(184, 201),
]  # fmt: skip


def read(rows, format=Format.NATIVE, **known):
    """Return the kept rows without no-object, and their category ids. The values of a row are its number."""
    bias = torch.arange(rows).float()
    head, _ = read_head(bias[:, None].repeat(1, 4), bias, format, **known)
    assert head.bias[-1] == rows - 1, "no-object is the last row"
    assert torch.equal(head.weight[:, 0], head.bias) and len(head.bias) == len(head.label_map) + 1
    return head.bias[:-1].int().tolist(), list(head.label_map.ids)


def counted(start, stop):
    return list(range(start, stop)), list(range(start, stop))


@pytest.mark.parametrize(
    ("rows", "known", "expected"),
    [
        (92, {}, (COCO_IDS, COCO_IDS)),
        (91, {}, ([i - 1 for i in COCO_IDS], COCO_IDS)),
        (81, {}, (list(range(80)), COCO_IDS)),
        (251, {}, (PANOPTIC_IDS, PANOPTIC_IDS)),
        (251, {"num_classes": 133}, (PANOPTIC_IDS, PANOPTIC_IDS)),
        (251, {"num_classes": 250}, counted(0, 250)),
        (134, {}, (list(range(133)), PANOPTIC_IDS)),
        (2, {}, counted(0, 1)),
        (3, {"first_class_id": 0}, counted(0, 2)),
        (3, {"first_class_id": 1}, counted(1, 2)),
        (92, {"first_class_id": 0}, counted(0, 91)),
        (91, {"first_class_id": 0}, counted(0, 90)),
        (80, {"first_class_id": 0}, counted(0, 79)),
        (92, {"num_classes": 80}, (COCO_IDS, COCO_IDS)),
        (92, {"num_classes": 91}, counted(0, 91)),
        (91, {"num_classes": 80}, ([i - 1 for i in COCO_IDS], COCO_IDS)),
        (3, {"num_classes": 2}, counted(0, 2)),
        (3, {"num_classes": 1}, counted(1, 2)),
        (5, {"num_classes": 4}, counted(0, 4)),
        (5, {"num_classes": 3}, counted(1, 4)),
        (22, {"label_map": LabelMap((3, 7, 20))}, ([3, 7, 20], [3, 7, 20])),
    ],
    ids=lambda value: str(value) if isinstance(value, int | dict) else "",
)
def test_rows_of_a_native_head(rows, known, expected):
    assert len(COCO_IDS) == 80 and len(PANOPTIC_IDS) == 133
    assert read(rows, **known) == expected


@pytest.mark.parametrize("format", [Format.PLUGIN, Format.WRAPPER])
@pytest.mark.parametrize("rows", [2, 3, 80, 81, 91, 92])
def test_plugin_and_wrapper_ids_are_contiguous(format, rows):
    assert read(rows, format)[0] == list(range(rows - 1))
    assert read(rows, format, num_classes=rows - 1)[0] == list(range(rows - 1))
    with pytest.raises(AmbiguousClassHead):
        read(rows, format, num_classes=rows)


def test_first_class_id_overrides_the_wrapper_layout():
    assert read(3, Format.WRAPPER, first_class_id=1) == counted(1, 2)


def test_hugging_face_labels_set_rows_and_category_ids():
    assert read(4, Format.HUGGING_FACE, label_map=LabelMap((3, 7, 20))) == ([0, 1, 2], [3, 7, 20])
    assert read(4, Format.HUGGING_FACE, label_map=LabelMap((1, 2))) == ([1, 2], [1, 2]), "row 0 is N/A"


@pytest.mark.parametrize("rows", [3, 4, 80, 90, 93, 250])
def test_ambiguous_rows_are_refused_with_both_readings(rows):
    with pytest.raises(AmbiguousClassHead, match=rf"{rows} rows has {rows - 1} classes .*--first-class-id 0 or 1"):
        read(rows)


def test_80_rows_are_refused_with_a_hint_at_coco():
    with pytest.raises(AmbiguousClassHead, match="80 classes have 81 rows"):
        read(80)


@pytest.mark.parametrize(("rows", "num_classes"), [(92, 3), (5, 7), (2, 80), (80, 80)])
def test_rows_that_do_not_fit_the_model_are_refused(rows, num_classes):
    with pytest.raises(AmbiguousClassHead, match=f"{rows} rows does not fit {num_classes} classes"):
        read(rows, num_classes=num_classes)


def test_head_without_a_class_is_refused():
    with pytest.raises(InputError, match="leaves no class"):
        read(2, first_class_id=1)


@pytest.mark.parametrize("format", [Format.NATIVE, Format.HUGGING_FACE])
@pytest.mark.parametrize("ids", [(-1, 0), (1, 9), (0, 10**9)], ids=["negative", "beyond", "huge"])
def test_ids_without_a_row_are_refused(format, ids):
    with pytest.raises(InputError, match=rf"label map: category ids from {ids[0]} to {ids[1]}, but .* 0 to 8"):
        read(10, format, label_map=LabelMap(ids))


@pytest.mark.parametrize("format", [Format.PLUGIN, Format.WRAPPER])
def test_a_label_map_of_another_length_is_refused(format):
    with pytest.raises(InputError, match="label map: 2 classes, but the class head has 9 classes"):
        read(10, format, label_map=LabelMap((0, 1)))


@pytest.mark.parametrize(
    ("weight", "bias"), [((3, 4), (2,)), ((3,), (3,)), ((1, 4), (1,)), ((0, 4), (0,)), ((3, 4), ())], ids=str
)
def test_a_head_of_other_shapes_is_refused(weight, bias):
    with pytest.raises(InputError, match="class head: weight and bias have the shapes"):
        read_head(torch.zeros(weight), torch.zeros(bias), Format.PLUGIN)


def test_no_class_to_keep_is_refused():
    with pytest.raises(InputError, match="no class to keep"):
        ClassHead(torch.ones(3, 2), torch.ones(3), LabelMap((0, 1), ("a", "b"))).keep([])


def test_note_counts_the_kept_rows():
    bias = torch.zeros(92)
    assert "81 of 92 rows kept, 80 classes" in read_head(bias[:, None], bias, Format.NATIVE)[1]


def test_coco_ids_and_names():
    coco = LabelMap.coco()
    assert list(coco.ids) == COCO_IDS and coco.names[0] == "person" and coco.names[-1] == "toothbrush"


def test_unused_rows_by_id_have_probability_0():
    head = ClassHead(torch.ones(3, 2), torch.tensor([1.0, 2.0, 3.0]), LabelMap((1, 4)))
    weight, bias = head.rows_by_id()
    assert bias.tolist() == [-1e4, 1.0, -1e4, -1e4, 2.0, 3.0] and weight[[0, 2, 3]].abs().sum() == 0
