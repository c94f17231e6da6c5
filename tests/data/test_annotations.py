"""The annotations of dataset dicts: instances unchanged, panoptic segments with boxes and masks."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from d2_detr.data.annotations import mask_problem, read_annotations, read_record_image, record_annotations
from d2_detr.data.formats.coco_panoptic import write_ids
from d2_detr.utils.errors import InputError
from tests.data.panoptic_sample import CAT, DOG, IDS, SKY, segment

from detectron2.data import transforms as T
from detectron2.data.detection_utils import annotations_to_instances, transform_instance_annotations
from detectron2.structures import BoxMode


@pytest.fixture
def record(tmp_path):
    """A panoptic dataset dict."""
    write_ids(IDS, tmp_path / "a.png")
    return {
        "file_name": "a.jpg",
        "height": 4,
        "width": 6,
        "pan_seg_file_name": str(tmp_path / "a.png"),
        "segments_info": [
            segment(SKY, 3, isthing=False),
            segment(CAT, 1, isthing=True),
            segment(DOG, 0, isthing=True, iscrowd=1),
        ],
    }


def test_annotations_of_a_panoptic_dict_are_its_segments(record):
    for unused in ("pan_seg_file_name", "height", "width"):  # Detectron2's own COCO lacks the last two
        del record[unused]
    fields = ("bbox", "category_id", "isthing", "iscrowd")
    expected = [([0, 0, 6, 3], 3, False, 0), ([0, 2, 3, 2], 1, True, 0), ([4, 2, 2, 2], 0, True, 1)]
    assert record_annotations(record) == [
        dict(zip(fields, values, strict=True)) | {"bbox_mode": BoxMode.XYWH_ABS} for values in expected
    ]


def test_annotations_of_other_dicts_are_returned_unchanged():
    annotations = [{"bbox": [1, 2, 3, 4]}]
    for function in (record_annotations, read_annotations):
        assert function({"annotations": annotations}) == annotations
        assert function({"file_name": "a.jpg"}) == []


@pytest.mark.parametrize("sizes", [("height", "width"), ()], ids=["with_sizes", "without"])
def test_masks_of_segments_are_the_pixels_of_their_color(record, sizes):
    record = {key: value for key, value in record.items() if key not in {"height", "width"} - set(sizes)}
    annotations = read_annotations(record)
    boxes = [{k: v for k, v in annotation.items() if k != "segmentation"} for annotation in annotations]
    assert boxes == record_annotations(record)
    for annotation, segment_id in zip(annotations, (SKY, CAT, DOG), strict=True):
        assert (mask_util.decode(annotation["segmentation"]) == (segment_id == IDS)).all()
    assert all("segmentation" not in s for s in record["segments_info"])


def test_detectron2_transforms_the_masks_of_segments(record):
    flip = T.RandomFlip(prob=1.0).get_transform(IDS)
    flipped = [transform_instance_annotations(a, flip, IDS.shape) for a in read_annotations(record)]
    masks = annotations_to_instances(flipped, IDS.shape, "bitmask").gt_masks.tensor.numpy()
    assert (masks == np.stack([(i == IDS)[:, ::-1] for i in (SKY, CAT, DOG)])).all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), r"a\.png: .*damaged"),
        (lambda path: write_ids(IDS[:, 1:], path), r"a\.png: .* is 5 x 4 pixels, its annotation says width 6"),
        (lambda path: write_ids(np.where(IDS == CAT, 0, IDS), path), r"a\.png: no pixel .* the segment with id 300"),
    ],
    ids=["truncated", "another_size", "segment_missing"],
)
def test_a_png_that_contradicts_its_entry_is_an_error(record, tmp_path, damage, message):
    damage(tmp_path / "a.png")
    with pytest.raises(InputError, match=message):
        read_annotations(record)


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        ({"segmentation": [[0, 0, 1, 0, 1, 1]]}, ""),
        ({"segmentation": {"size": [4, 4], "counts": b"04"}}, ""),
        ({}, "has no mask"),
        ({"segmentation": []}, "has no mask"),
        ({"iscrowd": 1}, ""),
    ],
    ids=["polygon", "rle", "none", "empty", "crowd"],
)
def test_only_objects_without_a_mask_are_a_problem(annotation, problem):
    message = mask_problem(annotation)
    assert (problem in message) if problem else message == ""


@pytest.mark.parametrize("sizes", [{"height": 4, "width": 6}, {}], ids=["with_sizes", "without"])
def test_the_image_of_a_dict_is_read_in_rgb(tmp_path, sizes):
    Image.new("RGB", (6, 4), "red").save(tmp_path / "a.png")
    image = read_record_image({"file_name": str(tmp_path / "a.png")} | sizes)
    assert image.shape == (4, 6, 3) and (image == (255, 0, 0)).all()
