"""LabelMap and the COCO categories."""

from pathlib import Path

import pytest
import yaml

import d2_detr
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError

EMBEDDED = Path(d2_detr.__file__).with_name("_embedded") / "detectron2" / "data" / "datasets" / "coco_categories.yaml"


@pytest.mark.parametrize(
    "content",
    [
        {"ids": [1]}, {"ids": [1], "names": ["a", "b"]}, {"ids": ["x"], "names": []}, [1], {"ids": [1, 1], "names": []},
        None, "ids", {"ids": [[1]], "names": ["a"]}, {"ids": {1: 2}, "names": ["a"]}, {"ids": [True], "names": ["a"]},
        {"ids": [float("inf")], "names": ["a"]}, {"ids": [1.5], "names": ["a"]}, {"ids": [1], "names": "a"},
        {"ids": [1], "names": [None]},
    ],
    ids=[
        "names_missing", "unequal_lengths", "id_not_a_number", "a_list", "duplicate_ids", "none", "text", "nested_ids",
        "ids_in_dict", "bool", "infinite", "fraction", "names_are_text", "name_is_none",
    ],
)  # fmt: skip
def test_malformed_label_map_is_refused(content):
    with pytest.raises(InputError, match="label.map"):
        LabelMap.from_dict(content)


def test_label_map_round_trip():
    label_map = LabelMap((3, 7), ("disc", "square"))
    assert LabelMap.from_dict(label_map.to_dict()) == label_map


def test_coco_things_agree_with_the_embedded_table():
    embedded = [(category["id"], category["name"]) for category in yaml.safe_load(EMBEDDED.read_text())]
    coco = LabelMap.coco()
    assert list(zip(coco.ids, coco.names, strict=True)) == embedded and len(embedded) == 80


def test_coco_panoptic_has_53_stuff_classes_after_the_things():
    coco, panoptic = LabelMap.coco(), LabelMap.coco_panoptic()
    assert (panoptic.ids[:80], panoptic.names[:80]) == (coco.ids, coco.names)
    assert len(panoptic) == 133 and (panoptic.names[80], panoptic.names[-1]) == ("banner", "rug-merged")
