import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

import d2_detr  # noqa: F401  (selects the detectron2 to import)

import detectron2
from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, PolygonMasks

embedded_only = pytest.mark.skipif(
    "embedded" not in detectron2.__version__, reason="specific to the embedded detectron2"
)

SQUARE = [2.0, 1, 6, 1, 6, 3, 2, 3]  # 4 wide, 2 high


def annotation(bbox=(2, 1, 6, 3), mode=BoxMode.XYXY_ABS, **fields):
    return {"bbox": list(bbox), "bbox_mode": mode, "category_id": 1, **fields}


def rle(height=8, width=10):
    return mask_util.frPyObjects([SQUARE], height, width)[0]


@pytest.fixture
def pixels():
    return np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(pixels, orientation, tmp_path):
    stored = {  # how a camera stores the upright image with this orientation
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    path = str(tmp_path / "turned.png")
    Image.fromarray(np.ascontiguousarray(stored(pixels))).save(path, exif=exif)
    assert np.array_equal(utils.read_image(path, "RGB"), pixels)


@pytest.mark.parametrize(
    "format, expected",
    [(None, lambda rgb: rgb), ("BGR", lambda rgb: rgb[:, :, ::-1]), ("L", lambda rgb: rgb[:, :, :1])],
    ids=["unchanged", "BGR", "L"],
)
def test_images_are_read_in_the_given_format(pixels, format, expected, tmp_path):
    gray = pixels[:, :, :1].repeat(3, axis=2) if format == "L" else pixels
    Image.fromarray(gray).save(tmp_path / "a.png")
    assert np.array_equal(utils.read_image(str(tmp_path / "a.png"), format), expected(gray))


def test_a_missing_size_is_set_and_a_wrong_one_refused(pixels):
    record = {"width": 4}
    utils.check_image_size(record | {"height": 2}, pixels)
    with pytest.raises(utils.SizeMismatchError, match=r"x\.jpg"):
        utils.check_image_size({"width": 4, "height": 3, "file_name": "x.jpg"}, pixels)
    record = {}
    utils.check_image_size(record, pixels)
    assert record == {"width": 4, "height": 2}


@pytest.mark.parametrize("bbox, mode", [((2, 1, 6, 3), BoxMode.XYXY_ABS), ((2.0, 1, 4, 2), BoxMode.XYWH_ABS)])
def test_a_box_becomes_xyxy_and_follows_the_transforms(bbox, mode):
    obj = utils.transform_instance_annotations(annotation(bbox, mode), [T.HFlipTransform(10)], (8, 10))
    assert obj["bbox"].tolist() == [4, 1, 8, 3] and obj["bbox_mode"] == BoxMode.XYXY_ABS


def test_a_box_is_clipped_to_the_image():
    obj = utils.transform_instance_annotations(annotation((-3.0, 1, 60, 30)), T.NoOpTransform(), (8, 10))
    assert obj["bbox"].tolist() == [0, 1, 10, 8]


def test_polygons_follow_the_transforms():
    obj = annotation(segmentation=[SQUARE, SQUARE])
    obj = utils.transform_instance_annotations(obj, T.ResizeTransform(8, 10, 16, 10), (16, 10))
    assert [p.tolist() for p in obj["segmentation"]] == [[2, 2, 6, 2, 6, 6, 2, 6]] * 2


def test_an_rle_becomes_a_transformed_mask():
    obj = utils.transform_instance_annotations(annotation(segmentation=rle()), T.HFlipTransform(10), (8, 10))
    assert np.array_equal(obj["segmentation"], mask_util.decode(rle())[:, ::-1])
    assert obj["segmentation"][1:3, 4:8].all() and obj["segmentation"].sum() == 8


def test_a_mask_of_the_wrong_size_is_refused():
    with pytest.raises(AssertionError):
        utils.transform_instance_annotations(annotation(segmentation=rle()), T.NoOpTransform(), (9, 10))


def test_an_unknown_mask_format_is_refused():
    with pytest.raises(AssertionError, match="polygons"):
        utils.annotations_to_instances([annotation(segmentation=[SQUARE])], (8, 10), mask_format="polygons")


def test_an_unknown_type_of_segmentation_is_refused():
    with pytest.raises(ValueError):
        utils.transform_instance_annotations(annotation(segmentation="?"), T.NoOpTransform(), (8, 10))


@pytest.mark.parametrize("size", [0, 2])
def test_annotations_become_boxes_and_classes(size):
    instances = utils.annotations_to_instances([annotation((2, 1, 4, 2), BoxMode.XYWH_ABS)] * size, (8, 10))
    assert instances.image_size == (8, 10) and len(instances) == size and not instances.has("gt_masks")
    assert instances.gt_boxes.tensor.tolist() == [[2, 1, 6, 3]] * size
    assert instances.gt_classes.tolist() == [1] * size


def test_polygons_become_polygon_masks_or_bit_masks():
    annos = [annotation(segmentation=[SQUARE])]
    polygons = utils.annotations_to_instances(annos, (8, 10)).gt_masks
    assert isinstance(polygons, PolygonMasks) and polygons.polygons[0][0].tolist() == SQUARE
    masks = utils.annotations_to_instances(annos, (8, 10), mask_format="bitmask").gt_masks
    assert isinstance(masks, BitMasks) and np.array_equal(masks.tensor[0], mask_util.decode(rle()))


def test_rles_arrays_and_polygons_make_the_same_bit_masks():
    annos = [annotation(segmentation=segm) for segm in ([SQUARE], rle(), mask_util.decode(rle()).astype(bool))]
    masks = utils.annotations_to_instances(annos, (8, 10), mask_format="bitmask").gt_masks.tensor
    assert masks.shape == (3, 8, 10) and (masks == masks[0]).all()


def test_an_rle_cannot_become_a_polygon():
    with pytest.raises(ValueError, match="polygon"):
        utils.annotations_to_instances([annotation(segmentation=rle())], (8, 10))


def test_instances_without_an_area_are_dropped():
    empty = np.zeros((8, 10), dtype=np.uint8)
    annos = [
        annotation(segmentation=rle()),
        annotation((1, 1, 1, 5), segmentation=rle()),
        annotation(segmentation=empty),
    ]
    instances = utils.annotations_to_instances(annos, (8, 10), mask_format="bitmask")
    assert utils.filter_empty_instances(instances).gt_boxes.tensor.tolist() == [[2, 1, 6, 3]]
    assert len(utils.filter_empty_instances(instances, by_mask=False)) == 2


def test_metadata_of_datasets_must_agree():
    for name, classes in (("u1", ["a"]), ("u2", ["a"]), ("u3", ["b"])):
        MetadataCatalog.get(name).thing_classes = classes
    utils.check_metadata_consistency("thing_classes", ["u1", "u2"])
    with pytest.raises(ValueError, match="thing_classes"):
        utils.check_metadata_consistency("thing_classes", ["u1", "u2", "u3"])
    with pytest.raises(AttributeError):
        utils.check_metadata_consistency("stuff_classes", ["u1"])


@embedded_only
def test_keypoints_are_refused():
    obj = annotation(keypoints=[1, 1, 2])
    with pytest.raises(NotImplementedError, match="install the real Detectron2"):
        utils.transform_instance_annotations(obj, T.NoOpTransform(), (8, 10))
    with pytest.raises(NotImplementedError, match="install the real Detectron2"):
        utils.annotations_to_instances([obj], (8, 10))
