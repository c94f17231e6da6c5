"""Records are what was packed, and processes share those of a file."""

import os
import pickle
from multiprocessing import get_context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2_detr.structures.records import Records, encode_record, spans_of
from d2_detr.utils.errors import InputError

from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.structures import BoxMode

numbers = st.floats(-1e9, 1e9) | st.integers(-(2**53), 2**53)
annotations = st.fixed_dictionaries(
    {
        "bbox": st.lists(numbers, min_size=4, max_size=4),
        "bbox_mode": st.sampled_from([BoxMode.XYWH_ABS, BoxMode.XYXY_ABS]),
        "category_id": st.integers(0, 90),
        "iscrowd": st.integers(0, 1),
    },
    optional={"segmentation": st.lists(st.lists(numbers, min_size=6, max_size=12), max_size=2)},
)
records = st.lists(
    st.fixed_dictionaries(
        {
            "file_name": st.text(st.characters(exclude_categories=[])),  # with lone surrogates
            "image_id": st.text() | st.integers(-(2**63), 2**63 - 1),
            "height": st.integers(1, 9999),
            "annotations": st.lists(annotations, max_size=3),
        }
    ),
    max_size=5,
)


@pytest.fixture
def mapped(tmp_path):
    """Records in a file of which they are not the beginning."""

    def mapped(values):
        encoded = [encode_record(value) for value in values]
        (tmp_path / "records").write_bytes(b"header" + b"".join(encoded))
        return Records.map(tmp_path / "records", spans_of(map(len, encoded)) + len(b"header"))

    return mapped


def example(number):
    return [{"file_name": f"{i}.jpg", "width": 9, "height": 8, "image_id": i, "annotations": []} for i in range(number)]


@given(records)
def test_records_are_what_was_packed(values):
    packed = Records.pack(values)
    assert list(packed) == values == [packed[i] for i in range(len(values))]
    assert list(pickle.loads(pickle.dumps(packed))) == values
    modes = [a["bbox_mode"] for record in packed for a in record["annotations"]]
    assert all(isinstance(mode, BoxMode) for mode in modes)


@given(records)
def test_selected_and_sliced_records_are_those_of_the_list(values):
    packed = Records.pack(values)
    assert list(packed[1:3]) == values[1:3] and list(packed[::-1]) == values[::-1]
    assert list(packed.select(range(0, len(values), 2))) == values[::2]
    with pytest.raises(IndexError):
        packed[len(values)]


def test_compressed_masks_become_text():
    rle = {"size": [8, 9], "counts": b"PPn0"}
    (record,) = Records.pack([{"annotations": [{"segmentation": rle}]}])
    assert record["annotations"][0]["segmentation"] == {"size": [8, 9], "counts": "PPn0"}


def test_other_objects_are_an_error():
    with pytest.raises(TypeError, match="object cannot be stored in a record|not JSON serializable"):
        Records.pack([{"image": object()}])


def test_a_changed_record_does_not_change_the_others():
    packed = Records.pack(example(2))
    packed[0]["file_name"] = "other"
    assert packed[0]["file_name"] == "0.jpg"


# ---- files


def test_mapped_records_are_pickled_without_their_content(mapped):
    values = example(1000)
    shared = mapped(values)
    assert list(shared) == values
    text = pickle.dumps(shared[:2])
    assert len(text) < 1000 and list(pickle.loads(text)) == values[:2]


def test_another_process_reads_the_same_file(mapped):
    shared = mapped(example(3))
    with get_context("spawn").Pool(1) as pool:
        assert pool.apply(list, (shared,)) == example(3)


def test_a_replaced_file_is_an_error_for_a_new_process_only(mapped, tmp_path):
    shared = mapped(example(3))
    text = pickle.dumps(shared)
    (tmp_path / "new").write_bytes(b"other")
    os.replace(tmp_path / "new", tmp_path / "records")
    assert list(shared) == example(3)
    with pytest.raises(InputError, match=r"records was replaced while a process was starting; start again"):
        pickle.loads(text)


# ---- Detectron2


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loaders_of_detectron2_take_records(mapped, num_workers):
    shared = mapped(example(5))
    loader = build_detection_test_loader(shared, mapper=dict, num_workers=num_workers)
    assert [record["image_id"] for batch in loader for record in batch] == [0, 1, 2, 3, 4]
    train = build_detection_train_loader(shared, mapper=dict, total_batch_size=2, num_workers=num_workers)
    assert len(next(iter(train))) == 2
