"""Panoptic quality, computed by hand for tiny images and by the evaluator for a dataset."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from d2_detr.config.keys import CUSTOM_VAL
from d2_detr.data.datasets import balloon, load_dataset
from d2_detr.data.formats.coco_panoptic import read_ids, write_ids
from d2_detr.data.formats.panoptic_from_instances import make_panoptic
from d2_detr.evaluation.panoptic import FN, FP, IOU, TP, PanopticEvaluator, match_segments, summarize_counts
from d2_detr.utils.errors import InputError
from tests import shapes

from detectron2.data import MetadataCatalog
from detectron2.utils import comm

CAT, DOG, SKY, SEA = range(4)
NAMES, THINGS = ("cat", "dog", "sky", "sea"), (CAT, DOG)


def panoptic(pixels, crowds="", **classes):
    """Return ids and segments of a one-row image: a letter per pixel, a dot for void."""
    ids = np.array([[0 if pixel == "." else ord(pixel) for pixel in pixels]])
    segments = [
        {"id": ord(name), "category_id": category_id, "iscrowd": int(name in crowds)}
        for name, category_id in classes.items()
    ]
    return ids, segments


def quality(ground_truth, prediction):
    return summarize_counts(match_segments(*ground_truth, *prediction, len(NAMES)), NAMES, THINGS)


# ---- one image


def test_perfect_predictions_have_quality_100():
    ground_truth = panoptic("AAABBCCC", A=CAT, B=CAT, C=SKY)
    result = quality(ground_truth, panoptic("xxxyyzzz", x=CAT, y=CAT, z=SKY))
    assert {result[key] for key in ("PQ", "SQ", "RQ", "PQ_th", "RQ_th", "PQ_st", "SQ_st", "PQ-cat")} == {100}


def test_missing_one_of_two_things_costs_a_third():
    ground_truth = panoptic("AAABBCCC", A=CAT, B=CAT, C=SKY)
    result = quality(ground_truth, panoptic("xxx..zzz", x=CAT, z=SKY))
    assert result["SQ_th"] == 100
    assert result["RQ_th"] == result["PQ_th"] == result["PQ-cat"] == pytest.approx(100 * 1 / (1 + 0.5))
    assert result["PQ_st"] == 100 and result["PQ"] == pytest.approx((100 + 200 / 3) / 2)


@pytest.mark.parametrize(
    ("prediction", "counts"),
    [("xx...", [2 / 3, 1, 0, 0]), (".xxx.", [0, 0, 1, 1]), ("x....", [0, 0, 1, 1])],
    ids=["two_thirds", "a_half", "a_third"],
)
def test_a_match_needs_an_iou_above_a_half(prediction, counts):
    ground_truth = panoptic("AAASS", A=CAT, S=SKY)  # the second prediction shares 2 of 4 pixels
    assert match_segments(*ground_truth, *panoptic(prediction, x=CAT), len(NAMES))[CAT].tolist() == counts


def test_void_ground_truth_pixels_are_not_in_the_union():
    result = quality(panoptic("AA..", A=CAT), panoptic("xxxx", x=CAT))
    assert result["PQ"] == result["SQ"] == 100


def test_void_predicted_pixels_stay_in_the_union():
    assert quality(panoptic("AAAA", A=CAT), panoptic("xxx.", x=CAT))["SQ"] == 75


@pytest.mark.parametrize(
    ("ground_truth", "false_positives"),
    [("..SS", 1), ("...S", 0), ("CCSS", 1), ("CCCS", 0), (".CSS", 1), (".CCS", 0), ("CCDS", 1), ("DDDS", 1)],
    ids=[
        "half_void", "mostly_void", "half_crowd", "mostly_crowd", "half_of_both", "mostly_of_both",
        "half_crowd_and_another_class", "crowd_of_another_class",
    ],
)  # fmt: skip
def test_segments_mostly_on_void_or_crowds_are_ignored(ground_truth, false_positives):
    classes = {name: {"C": CAT, "D": DOG, "S": SKY}[name] for name in {*ground_truth} - {"."}}
    counts = match_segments(*panoptic(ground_truth, crowds="CD", **classes), *panoptic("xxxx", x=CAT), len(NAMES))
    assert counts[CAT].tolist() == [0, 0, false_positives, 0]


def test_all_crowds_of_a_class_count_together():
    ground_truth = panoptic("BBCCS", crowds="BC", B=CAT, C=CAT, S=SKY)
    assert match_segments(*ground_truth, *panoptic("xxxxx", x=CAT), len(NAMES))[CAT, FP] == 0


def test_crowds_need_not_be_predicted():
    ground_truth = panoptic("CCCCSS", crowds="C", C=CAT, S=SKY)
    exact = panoptic("xxxxzz", x=CAT, z=SKY)
    for prediction in (exact, panoptic("....zz", z=SKY)):
        result = quality(ground_truth, prediction)
        assert result["PQ"] == 100 and math.isnan(result["PQ-cat"]) and math.isnan(result["PQ_th"])


def test_a_wrong_class_counts_against_both_classes():
    counts = match_segments(*panoptic("AAAA", A=CAT), *panoptic("xxxx", x=DOG), len(NAMES))
    assert counts[CAT].tolist() == [0, 0, 0, 1] and counts[DOG].tolist() == [0, 0, 1, 0]
    result = quality(panoptic("AAAA", A=CAT), panoptic("xxxx", x=DOG))
    assert result["PQ"] == result["SQ"] == result["RQ"] == result["PQ-dog"] == 0


def test_the_mean_is_over_the_classes_that_occur():
    """IoU 4/5 of sky and 3/4 of sea, a false positive cat, and no dog."""
    ground_truth = panoptic("SSSSSEEEE", S=SKY, E=SEA)
    result = quality(ground_truth, panoptic("ssssxxeee", s=SKY, x=CAT, e=SEA))
    assert result["PQ-sky"] == pytest.approx(80) and result["PQ-sea"] == pytest.approx(75)
    assert result["PQ_st"] == result["SQ_st"] == pytest.approx(77.5) and result["RQ_st"] == 100
    assert result["PQ_th"] == result["PQ-cat"] == 0 and math.isnan(result["PQ-dog"])
    assert result["PQ"] == pytest.approx((80 + 75 + 0) / 3) and result["RQ"] == pytest.approx(200 / 3)


def test_without_segments_all_metrics_are_nan():
    assert all(math.isnan(value) for value in summarize_counts(np.zeros((4, 4)), NAMES, THINGS).values())


def test_a_prediction_of_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"size \(1, 3\), expected \(1, 4\)"):
        match_segments(*panoptic("AAAA", A=CAT), *panoptic("xxx", x=CAT), len(NAMES))


maps = arrays(np.int32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 5))


@st.composite
def segmentations(draw, ids):
    present = sorted({*ids.ravel().tolist()} - {0})
    classes = draw(st.lists(st.integers(0, len(NAMES) - 1), min_size=len(present), max_size=len(present)))
    crowds = draw(st.lists(st.integers(0, 1), min_size=len(present), max_size=len(present)))
    return [
        {"id": i, "category_id": label, "iscrowd": crowd}
        for i, label, crowd in zip(present, classes, crowds, strict=True)
    ]


@given(st.data())
def test_ground_truth_as_prediction_has_quality_100(data):
    ids = data.draw(maps)
    segments = data.draw(segmentations(ids))
    without_crowds = [segment for segment in segments if not segment["iscrowd"]]
    result = quality((ids, segments), (ids, without_crowds))
    occurs = {NAMES[segment["category_id"]] for segment in without_crowds}
    assert all(result[f"PQ-{name}"] == pytest.approx(100) for name in occurs)
    assert all(math.isnan(result[f"PQ-{name}"]) for name in {*NAMES} - occurs)


@given(st.data())
def test_no_segment_is_counted_twice(data):
    ground_truth = data.draw(maps)
    prediction = data.draw(arrays(np.int32, ground_truth.shape, elements=st.integers(0, 5)))
    true_segments, predicted_segments = data.draw(segmentations(ground_truth)), data.draw(segmentations(prediction))
    counts = match_segments(ground_truth, true_segments, prediction, predicted_segments, len(NAMES))
    for label in range(len(NAMES)):
        things = sum(s["category_id"] == label and not s["iscrowd"] for s in true_segments)
        assert counts[label, TP] + counts[label, FN] == things
        assert counts[label, TP] + counts[label, FP] <= sum(s["category_id"] == label for s in predicted_segments)
        assert counts[label, TP] / 2 <= counts[label, IOU] <= counts[label, TP]


# ---- a dataset


@pytest.fixture
def dataset(tmp_path):
    """A panoptic dataset of three images."""
    root = shapes.draw_shapes(tmp_path / "coco")
    make_panoptic(root / "annotations" / f"{CUSTOM_VAL}.json")
    return load_dataset(f"{CUSTOM_VAL}_panoptic", root)


def perfect_output(record):
    """Return the ground truth in the output format of a model, with other segment ids."""
    ids, segments = read_ids(record["pan_seg_file_name"]), []
    pred_ids = np.zeros_like(ids)
    for segment_id, segment in enumerate(record["segments_info"], 1):
        pred_ids[ids == segment["id"]] = segment_id
        label = {key: segment[key] for key in ("isthing", "category_id")}
        segments.append({"id": segment_id, "score": 0.9, **label})
    return {"panoptic_seg": (torch.from_numpy(pred_ids), segments)}


def empty_output(record):
    return {"panoptic_seg": (torch.zeros(record["height"], record["width"], dtype=torch.int32), [])}


def test_quality_is_100_for_perfect_and_0_for_no_predictions(dataset):
    records = dataset.records
    evaluator = PanopticEvaluator(dataset)
    for output, expected in ((perfect_output, 100), (empty_output, 0)):
        evaluator.reset()
        for record in records:  # inputs such as those from the mapper
            evaluator.process([{"image_id": record["image_id"]}], [output(record)])
        (result,) = evaluator.evaluate().values()
        assert {result[key] for key in ("PQ", "PQ_th", "RQ_st", "PQ-background")} == {expected}
        assert {f"PQ-{name}" for name in ("disc", "square", "triangle")} < result.keys()


def test_ground_truth_comes_from_the_dataset_not_the_input(dataset):
    evaluator = PanopticEvaluator(dataset)
    for record in dataset.records:
        changed = record | {"segments_info": None, "pan_seg_file_name": None}
        evaluator.process([changed], [perfect_output(record)])
    assert evaluator.evaluate()["panoptic_seg"]["PQ"] == 100


def test_image_sizes_are_optional(dataset):
    records = [{key: record[key] for key in record if key not in ("width", "height")} for record in dataset.records]
    evaluator = PanopticEvaluator(dataclasses.replace(dataset, records=records))
    evaluator.process(records, [perfect_output(record) for record in records])
    assert evaluator.evaluate()["panoptic_seg"]["PQ"] == 100


def test_predictions_are_written_in_coco_format(dataset, tmp_path):
    records = dataset.records
    evaluator = PanopticEvaluator(dataset, tmp_path / "inference")
    outputs = [perfect_output(record) for record in records]
    evaluator.process(records, outputs)
    evaluator.evaluate()
    written = json.loads((tmp_path / "inference" / "predictions.json").read_text())["annotations"]
    assert [entry["image_id"] for entry in written] == [record["image_id"] for record in records]
    original = dataset.label_map.ids
    for entry, output in zip(written, outputs, strict=True):
        ids, segments = output["panoptic_seg"]
        assert (read_ids(tmp_path / "inference" / "panoptic_predictions" / entry["file_name"]) == ids.numpy()).all()
        expected = [{"id": s["id"], "category_id": original[s["category_id"]]} for s in segments]
        assert entry["segments_info"] == expected
    assert {s["category_id"] for entry in written for s in entry["segments_info"]} <= {3, 7, 20, 21}


def test_counts_of_all_processes_are_summed(dataset, tmp_path, monkeypatch):
    """Two processes share the images; the second predicts nothing."""
    records = dataset.records
    outputs = [perfect_output(records[0]), *map(empty_output, records[1:])]
    alone = PanopticEvaluator(dataset)
    alone.process(records, outputs)
    together = alone.evaluate()
    first, second = (PanopticEvaluator(dataset, tmp_path) for _ in range(2))
    first.process(records[:1], outputs[:1])
    second.process(records[1:], outputs[1:])
    sent = []
    with monkeypatch.context() as patch:
        patch.setattr(comm, "gather", lambda data: sent.append(data) or [])
        patch.setattr(comm, "is_main_process", lambda: False)
        assert second.evaluate() == {}
    monkeypatch.setattr(comm, "gather", lambda data: [data, *sent])
    assert first.evaluate()["panoptic_seg"] == pytest.approx(together["panoptic_seg"], nan_ok=True)
    assert 0 < together["panoptic_seg"]["PQ"] < 100
    assert len(json.loads((tmp_path / "predictions.json").read_text())["annotations"]) == len(records)


def test_an_image_absent_from_the_annotations_is_an_error(dataset):
    record = dataset.records[0]
    with pytest.raises(InputError, match=r"custom_val_panoptic\.json: no annotation .* image_id 'x'"):
        PanopticEvaluator(dataset).process([record | {"image_id": "x"}], [perfect_output(record)])


@pytest.fixture
def coco():
    """Write `coco_2017_val_panoptic` with an image of a person below the sky."""
    name = "coco_2017_val_panoptic"
    before = MetadataCatalog.get(name)
    folder = balloon.datasets_folder() / "coco"
    png, json_file = folder / "panoptic_val2017" / "a.png", folder / "annotations" / "panoptic_val2017.json"
    ids = np.where(np.arange(12).reshape(3, 4) < 8, 500, 7)
    write_ids(ids, png)
    segments = [
        {"id": 500, "category_id": 187, "iscrowd": 0, "bbox": [0, 0, 4, 2], "area": 8},
        {"id": 7, "category_id": 1, "iscrowd": 0, "bbox": [0, 2, 4, 1], "area": 4},
    ]
    content = {
        "images": [{"id": 3, "file_name": "a.jpg", "width": 4, "height": 3}],
        "annotations": [{"image_id": 3, "file_name": "a.png", "segments_info": segments}],
        "categories": [
            {"id": 187, "name": "sky-other-merged", "isthing": 0},
            {"id": 1, "name": "person", "isthing": 1},
        ],
    }
    json_file.parent.mkdir(parents=True)
    json_file.write_text(json.dumps(content))
    image = folder / "val2017" / "a.jpg"  # Detectron2's loader requires it
    image.parent.mkdir()
    image.touch()
    yield name
    image.unlink()
    image.parent.rmdir()
    png.unlink()
    json_file.unlink()
    json_file.parent.rmdir()
    MetadataCatalog[name] = before


def test_the_coco_panoptic_dataset_can_be_evaluated(coco):
    dataset = load_dataset(coco, evaluated=False)
    label_map = dataset.label_map
    person, sky = label_map.names.index("person"), label_map.names.index("sky-other-merged")
    ids = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [2, 2, 2, 2]], dtype=torch.int32)
    segments = [{"id": 1, "isthing": False, "category_id": sky}, {"id": 2, "isthing": True, "category_id": person}]
    evaluator = PanopticEvaluator(dataset)
    evaluator.process([{"image_id": 3}], [{"panoptic_seg": (ids, segments)}])
    result = evaluator.evaluate()["panoptic_seg"]
    assert (result["PQ_th"], result["PQ_st"], result["PQ-person"]) == (100, 75, 100)
