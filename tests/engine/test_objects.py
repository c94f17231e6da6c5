"""From Detectron2's dicts and the model's outputs to what is drawn."""

import numpy as np
import pycocotools.mask as mask_util
import torch

from d2_detr.data.formats.coco_panoptic import write_ids
from d2_detr.structures.conversions import detections_from_output, ground_truth_detections

from detectron2.structures import Boxes, BoxMode, Instances

POLYGON = [2.0, 1, 6, 1, 6, 5, 2, 5]


def record(**more):
    return {"file_name": "a.jpg", "height": 8, "width": 10} | more


def annotation(segmentation):
    entry = {"bbox": [2, 1, 4, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 3}
    return entry if segmentation is None else entry | {"segmentation": segmentation}


def test_the_truth_has_boxes_classes_and_masks_of_polygons_and_rles_alike():
    [rle] = mask_util.frPyObjects([POLYGON], 8, 10)
    truth = ground_truth_detections(
        record(annotations=[annotation([POLYGON]), annotation(rle), annotation(None)]), masks=True
    )
    assert truth.boxes_xyxy.tolist() == [[2, 1, 6, 5]] * 3 and truth.classes.tolist() == [3] * 3
    expected = np.zeros((8, 10), bool)
    expected[1:5, 2:6] = True
    assert (truth.masks[:2] == expected).all() and not truth.masks[2].any() and truth.scores is None


def test_without_masks_none_are_drawn_and_a_picture_may_be_empty():
    assert ground_truth_detections(record(annotations=[annotation([POLYGON])]), masks=False).masks is None
    empty = ground_truth_detections(record(annotations=[]), masks=True)
    assert empty.boxes_xyxy.shape == (0, 4) and empty.masks.shape == (0, 8, 10)


def test_the_segments_of_a_panoptic_picture_are_its_truth_and_stuff_has_no_box(tmp_path):
    ids = np.full((8, 10), 7, np.int32)
    ids[1:5, 2:6] = 300
    write_ids(ids, tmp_path / "a.png")
    segments = [
        {"id": 300, "category_id": 0, "isthing": True, "iscrowd": 0, "bbox": [2, 1, 4, 4]},
        {"id": 7, "category_id": 1, "isthing": False, "iscrowd": 0, "bbox": [0, 0, 10, 8]},
    ]
    truth = ground_truth_detections(
        record(pan_seg_file_name=str(tmp_path / "a.png"), segments_info=segments), masks=True
    )
    assert truth.boxes_xyxy[0].tolist() == [2, 1, 6, 5] and np.isnan(truth.boxes_xyxy[1]).all()
    assert (truth.masks == [ids == 300, ids == 7]).all()


def test_what_was_found_are_instances_or_where_there_are_any_segments():
    instances = Instances((8, 10))
    instances.pred_boxes = Boxes(torch.tensor([[2.0, 1, 6, 5]]))
    instances.pred_classes, instances.scores = torch.tensor([1]), torch.tensor([0.9])
    assert detections_from_output({"instances": instances}).masks is None
    instances.pred_masks = torch.zeros(1, 8, 10, dtype=torch.bool)
    found = detections_from_output({"instances": instances})
    assert found.boxes_xyxy.tolist() == [[2, 1, 6, 5]] and found.masks.shape == (1, 8, 10)

    ids = torch.ones(8, 10, dtype=torch.int32)
    ids[1:5, 2:6] = 2
    info = [
        {"id": 1, "category_id": 1, "isthing": False, "score": 0.95},
        {"id": 2, "category_id": 0, "isthing": True, "score": 0.9},
    ]
    found = detections_from_output({"instances": instances, "panoptic_seg": (ids, info)})
    assert np.isnan(found.boxes_xyxy[0]).all() and found.boxes_xyxy[1].tolist() == [2, 1, 6, 5]
    assert found.classes.tolist() == [1, 0] and (found.masks[1] == (ids == 2).numpy()).all()
    nothing = detections_from_output(
        {"instances": instances, "panoptic_seg": (torch.zeros(8, 10, dtype=torch.int32), [])}
    )
    assert nothing.masks.shape == (0, 8, 10)
