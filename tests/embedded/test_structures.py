import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    ImageList,
    Instances,
    PolygonMasks,
    polygons_to_bitmask,
)

XYXY, XYWH = BoxMode.XYXY_ABS, BoxMode.XYWH_ABS
SQUARE = [1.0, 1, 3, 1, 3, 3, 1, 3]  # pixels 1 and 2 in x and y
TRIANGLE = [0.0, 0, 4, 0, 0, 2]  # area 4


@pytest.mark.parametrize("wrap", [list, tuple, lambda b: np.array([b]), lambda b: torch.tensor([b])])
@pytest.mark.parametrize("source, target", [(XYXY, XYWH), (XYWH, XYXY)])
def test_box_conversion_keeps_type_and_input(wrap, source, target):
    boxes = {XYXY: [5, 6, 15, 26], XYWH: [5, 6, 10, 20]}
    box, expected = wrap(boxes[source]), wrap(boxes[target])
    converted = BoxMode.convert(box, source, target)
    assert type(converted) is type(expected)
    assert np.array_equal(converted, expected)
    assert np.array_equal(box, wrap(boxes[source]))
    assert getattr(converted, "dtype", None) == getattr(expected, "dtype", None)


def test_box_mode_accepts_ints_and_is_an_int():
    assert BoxMode.convert([1, 2, 3, 4], 0, 1) == [1, 2, 2, 2]
    assert list(BoxMode) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("box", [[[1, 2, 3, 4]], [1, 2, 3]], ids=["nested", "three numbers"])
def test_a_list_that_is_not_a_box_is_refused(box):
    with pytest.raises(AssertionError):
        BoxMode.convert(box, XYXY, XYWH)


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4))
def test_box_conversion_round_trips(box):
    assert BoxMode.convert(BoxMode.convert(box, XYWH, XYXY), XYXY, XYWH) == box


def test_boxes_have_areas_and_can_be_clipped_and_scaled():
    boxes = Boxes([[0, 0, 2, 3], [4, 4, 4, 9], [-1, -1, 20, 30]])
    assert boxes.tensor.dtype == torch.float32
    assert boxes.area().tolist() == [6, 0, 651]
    assert boxes.nonempty().tolist() == [True, False, True]
    assert boxes.nonempty(threshold=2).tolist() == [False, False, True]
    boxes.clip((10, 5))  # height, width
    assert boxes.tensor[2].tolist() == [0, 0, 5, 10]
    boxes.scale(2, 10)
    assert boxes.tensor[0].tolist() == [0, 0, 4, 30]


def test_clipping_infinite_boxes_is_refused():
    with pytest.raises(AssertionError):
        Boxes([[0, 0, float("inf"), 1]]).clip((5, 5))


@pytest.mark.parametrize(
    "item, length", [(1, 1), (slice(1, 3), 2), (torch.tensor([True, False, True]), 2), (torch.tensor([2, 2, 0, 1]), 4)]
)
def test_indexing_boxes_and_bit_masks_keeps_their_dimensions(item, length):
    assert Boxes(torch.rand(3, 4))[item].tensor.shape == (length, 4)
    assert BitMasks(torch.ones(3, 5, 6))[item].tensor.shape == (length, 5, 6)
    assert len(PolygonMasks([[SQUARE]] * 3)[item]) == length


@pytest.mark.parametrize("empty", [torch.empty(0), torch.empty(0, 4), []])
def test_empty_boxes_have_shape_0_by_4(empty):
    assert Boxes(empty).tensor.shape == (0, 4)
    assert Boxes.cat([]).tensor.shape == (0, 4)


def test_boxes_of_wrong_shape_are_refused():
    with pytest.raises(AssertionError):
        Boxes(torch.zeros(2, 5))


def test_boxes_can_be_concatenated_and_iterated():
    joined = Boxes.cat([Boxes([[0, 0, 1, 1]]), Boxes([[0, 0, 2, 2]])])
    assert [box.tolist() for box in joined] == [[0, 0, 1, 1], [0, 0, 2, 2]]


@pytest.mark.parametrize(
    "arguments, shape",
    [
        ({}, (5, 7)),
        ({"size_divisibility": 4}, (8, 8)),
    ],
)
def test_image_list_pads_to_the_common_size(arguments, shape):
    a, b = torch.rand(3, 5, 2), torch.rand(3, 4, 7)
    images = ImageList.from_tensors([a, b], pad_value=9.0, **arguments)
    assert images.tensor.shape == (2, 3, *shape)
    assert images.image_sizes == [(5, 2), (4, 7)]
    assert torch.equal(images[0], a) and torch.equal(images[1], b)
    assert (images.tensor[0, :, :, 2:] == 9).all() and (images.tensor[1, :, 4:] == 9).all()


def test_a_single_image_is_padded_too():
    images = ImageList.from_tensors([torch.ones(2, 3)], size_divisibility=4)
    assert len(images) == 1
    assert images.tensor.shape == (1, 4, 4)
    assert images.tensor.sum() == 6


def test_empty_or_mixed_channel_image_lists_are_refused():
    with pytest.raises(AssertionError):
        ImageList.from_tensors([])
    with pytest.raises(AssertionError):
        ImageList.from_tensors([torch.ones(1, 2, 2), torch.ones(3, 2, 2)])


@pytest.fixture
def instances():
    return Instances((10, 20), boxes=Boxes(torch.arange(12.0).reshape(3, 4)), scores=torch.arange(3), names=[*"abc"])


def test_instances_have_fields_as_attributes(instances):
    assert instances.image_size == (10, 20)
    assert instances.has("scores") and not instances.has("masks")
    assert instances.scores is instances.get("scores") is instances.get_fields()["scores"]
    instances.remove("scores")
    with pytest.raises(AttributeError, match="scores"):
        _ = instances.scores


@pytest.mark.parametrize("item, ids", [(0, [0]), (-1, [2]), (slice(1, None), [1, 2])])
def test_indexing_instances_indexes_every_field(instances, item, ids):
    selected = instances[item]
    assert selected.scores.tolist() == ids
    assert selected.names == ["abc"[i] for i in ids]
    assert selected.boxes.tensor[:, 0].tolist() == [4 * i for i in ids]
    assert selected.image_size == (10, 20)


def test_instances_can_be_indexed_by_a_bool_mask(instances):
    instances.remove("names")
    assert instances[instances.scores > 0].scores.tolist() == [1, 2]


@pytest.mark.parametrize("item", [3, -4])
def test_an_instance_index_out_of_range_is_refused(instances, item):
    with pytest.raises(IndexError):
        instances[item]


def test_a_field_of_another_length_is_refused(instances):
    with pytest.raises(AssertionError):
        instances.classes = torch.zeros(2)


def test_len_without_fields_and_iteration_are_refused(instances):
    with pytest.raises(NotImplementedError):
        len(Instances((1, 1)))
    with pytest.raises(NotImplementedError):
        iter(instances)


def test_instances_cat_joins_tensors_lists_and_structures(instances):
    instances.masks = PolygonMasks([[SQUARE]] * 3)
    joined = Instances.cat([instances, instances])
    assert len(joined) == len(joined.boxes) == len(joined.masks) == 6
    assert joined.names == [*"abcabc"]
    with pytest.raises(AssertionError):
        Instances.cat([instances, Instances((1, 1), scores=torch.zeros(1))])


def test_instances_print_their_fields_and_can_be_pickled(instances):
    import pickle

    assert str(Instances((1, 2), a=[5])) == "Instances(num_instances=1, image_height=1, image_width=2, fields=[a: [5]])"
    assert pickle.loads(pickle.dumps(instances)).names == [*"abc"]


def test_polygons_are_rasterized_to_their_union():
    mask = polygons_to_bitmask([np.array(SQUARE), np.array(SQUARE) + 1], 5, 6)
    assert (mask.shape, mask.dtype, mask.sum()) == ((5, 6), bool, 7)
    assert mask[1:3, 1:3].all() and mask[2:4, 2:4].all()
    assert polygons_to_bitmask([], 5, 6).sum() == 0


def test_empty_bit_masks_are_recognized():
    masks = torch.zeros(2, 5, 6)
    masks[0, 4, 5] = 1
    bit_masks = BitMasks(masks)
    assert bit_masks.tensor.dtype == torch.bool and bit_masks.image_size == (5, 6)
    assert bit_masks.nonempty().tolist() == [True, False]
    assert len(BitMasks.cat([bit_masks, bit_masks])) == 4


def test_polygon_masks_have_areas_and_can_be_indexed():
    masks = PolygonMasks([[torch.tensor(SQUARE)], [np.array(TRIANGLE), np.array(SQUARE)], []])
    assert masks.area().tolist() == [4, 8, 0]
    assert masks.nonempty().tolist() == [True, True, False]
    assert [len(polygons) for polygons in masks] == [1, 2, 0]
    assert [len(polygons) for polygons in masks[[2, 1]]] == [0, 2]
    assert masks.polygons[0][0].dtype == np.float64
    assert masks.to("cuda") is masks and masks.device.type == "cpu"
    assert len(PolygonMasks.cat([masks, masks[0]])) == 4


@pytest.mark.parametrize(
    "polygons", [np.zeros((1, 6)), [np.array(SQUARE)], [[[0, 0, 1, 1]]], [[[0, 0, 1, 1, 2, 2, 3]]]]
)
def test_only_lists_of_polygon_lists_are_accepted(polygons):
    with pytest.raises(ValueError):
        PolygonMasks(polygons)


def test_masks_have_tight_boxes():
    masks = PolygonMasks([[np.array(SQUARE), np.array(TRIANGLE)], [np.array(SQUARE) + 0.5], [-np.array(SQUARE)], []])
    infinite = [np.inf, np.inf, 0, 0]
    expected = [[0, 0, 4, 3], [1.5, 1.5, 3.5, 3.5], [-3, -3, 0, 0], infinite]
    assert masks.get_bounding_boxes().tensor.tolist() == expected
    bit_masks = BitMasks.from_polygon_masks(masks[[1, 0, 3]], 5, 6)
    assert bit_masks.tensor.shape == (3, 5, 6)
    boxes = bit_masks.get_bounding_boxes()
    assert isinstance(boxes, Boxes)
    drawn = np.argwhere(bit_masks.tensor[0].numpy())
    assert boxes.tensor[0].tolist() == [*drawn.min(0)[::-1], *drawn.max(0)[::-1] + 1]
    assert boxes.tensor[2].tolist() == [0, 0, 0, 0]


def test_empty_masks_have_empty_boxes():
    assert PolygonMasks([]).get_bounding_boxes().tensor.shape == (0, 4)
    masks = BitMasks.from_polygon_masks([], 5, 6)
    assert masks.tensor.shape == (0, 5, 6) and masks.get_bounding_boxes().tensor.shape == (0, 4)
