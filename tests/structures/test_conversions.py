"""Conversion of Detectron2's dicts and model outputs to detections."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from PIL import Image

from d2_detr.data.annotations import ground_truth_detections
from d2_detr.data.formats.coco_panoptic import write_ids
from d2_detr.structures.conversions import detections_from_output, detections_from_results
from d2_detr.structures.label_map import LabelMap
from d2_detr.visualization.drawing import draw_detections

from detectron2.structures import Boxes, BoxMode, Instances

POLYGON = [2.0, 1, 6, 1, 6, 5, 2, 5]


def record(**fields):
    return {"file_name": "a.jpg", "height": 8, "width": 10} | fields


def annotation(segmentation):
    entry = {"bbox": [2, 1, 4, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 3}
    return entry if segmentation is None else entry | {"segmentation": segmentation}


def test_ground_truth_has_boxes_classes_and_masks():
    [rle] = mask_util.frPyObjects([POLYGON], 8, 10)
    ground_truth = ground_truth_detections(
        record(annotations=[annotation([POLYGON]), annotation(rle), annotation(None)]), masks=True
    )
    assert ground_truth.boxes_xyxy.tolist() == [[2, 1, 6, 5]] * 3 and ground_truth.classes.tolist() == [3] * 3
    expected = np.zeros((8, 10), bool)
    expected[1:5, 2:6] = True
    assert (ground_truth.masks[:2] == expected).all() and not ground_truth.masks[2].any()
    assert ground_truth.scores is None


def test_masks_are_optional_and_an_image_may_be_empty():
    assert ground_truth_detections(record(annotations=[annotation([POLYGON])]), masks=False).masks is None
    empty = ground_truth_detections(record(annotations=[]), masks=True)
    assert empty.boxes_xyxy.shape == (0, 4) and empty.masks.shape == (0, 8, 10) and empty.masks.dtype == bool


def test_a_missing_size_is_that_of_the_image(tmp_path):
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    without_size = {"file_name": str(tmp_path / "a.png"), "annotations": [annotation([POLYGON])]}
    ground_truth, expected = (
        ground_truth_detections(r, masks=True) for r in (without_size, without_size | record(file_name=""))
    )
    assert ground_truth.masks.any() and (ground_truth.masks == expected.masks).all()


SEGMENTS = [
    {"id": 300, "category_id": 0, "isthing": True, "iscrowd": 0, "bbox": [2, 1, 4, 4]},
    {"id": 7, "category_id": 1, "isthing": False, "iscrowd": 0, "bbox": [0, 0, 10, 8]},
]


def test_panoptic_ground_truth_has_no_boxes_for_stuff(tmp_path):
    ids = np.full((8, 10), 7, np.int32)
    ids[1:5, 2:6] = 300
    write_ids(ids, tmp_path / "a.png")
    ground_truth = ground_truth_detections(
        record(pan_seg_file_name=str(tmp_path / "a.png"), segments_info=SEGMENTS), masks=True
    )
    assert ground_truth.boxes_xyxy[0].tolist() == [2, 1, 6, 5] and np.isnan(ground_truth.boxes_xyxy[1]).all()
    assert (ground_truth.masks == [ids == 300, ids == 7]).all()


def test_panoptic_ground_truth_without_masks_has_only_things():
    ground_truth = ground_truth_detections(record(pan_seg_file_name="absent.png", segments_info=SEGMENTS), masks=False)
    assert ground_truth.boxes_xyxy.tolist() == [[2, 1, 6, 5]] and ground_truth.classes.tolist() == [0]
    draw_detections(Image.new("RGB", (10, 8)), ground_truth, ["cat"], {"cat": "#ff0000"})


@pytest.mark.parametrize("masks", [False, True])
def test_no_results_are_no_detections(masks):
    detections = detections_from_results([], LabelMap((7,)), masks=masks)
    assert detections.boxes_xyxy.shape == (0, 4) and len(detections.classes) == 0 and detections.masks is None


def test_detections_come_from_panoptic_segments_if_present():
    instances = Instances((8, 10))
    instances.pred_boxes = Boxes(torch.tensor([[2.0, 1, 6, 5]]))
    instances.pred_classes, instances.scores = torch.tensor([1]), torch.tensor([0.9])
    assert detections_from_output({"instances": instances}).masks is None
    instances.pred_masks = torch.zeros(1, 8, 10, dtype=torch.bool)
    detections = detections_from_output({"instances": instances})
    assert detections.boxes_xyxy.tolist() == [[2, 1, 6, 5]] and detections.masks.shape == (1, 8, 10)

    ids = torch.ones(8, 10, dtype=torch.int32)
    ids[1:5, 2:6] = 2
    info = [
        {"id": 1, "category_id": 1, "isthing": False, "score": 0.95},
        {"id": 2, "category_id": 0, "isthing": True, "score": 0.9},
    ]
    detections = detections_from_output({"instances": instances, "panoptic_seg": (ids, info)})
    assert np.isnan(detections.boxes_xyxy[0]).all() and detections.boxes_xyxy[1].tolist() == [2, 1, 6, 5]
    assert detections.classes.tolist() == [1, 0] and (detections.masks[1] == (ids == 2).numpy()).all()
    empty = detections_from_output(
        {"instances": instances, "panoptic_seg": (torch.zeros(8, 10, dtype=torch.int32), [])}
    )
    assert empty.masks.shape == (0, 8, 10) and empty.masks.dtype == bool
