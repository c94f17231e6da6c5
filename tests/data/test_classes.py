"""MODEL.DETR.NUM_CLASSES against what the datasets hold."""

import pytest

from d2_detr.data.datasets import classes
from d2_detr.data.datasets.classes import check_num_classes, dataset_classes, model_label_map, resolve_num_classes
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError
from d2_detr.workflows.setup import load_config

from detectron2.data import DatasetCatalog, MetadataCatalog


@pytest.fixture(autouse=True)
def datasets():
    """`classes_3` and `classes_2` know their classes; `classes_lazy` says them when its annotations are read."""

    def load_lazy():
        MetadataCatalog.get("classes_lazy").thing_classes = ["a", "b", "c", "d"]
        return []

    loaders = {"classes_3": list, "classes_2": list, "classes_lazy": load_lazy}
    for name, loader in loaders.items():
        DatasetCatalog.register(name, loader)
    MetadataCatalog.get("classes_3").thing_classes = ["cat", "dog", "cow"]
    MetadataCatalog.get("classes_2").thing_classes = ["cat", "dog"]
    yield
    for name in loaders:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr(classes.logger, "warning", lambda message, *args: messages.append(message % args))
    return messages


def config(num_classes, train=("classes_3",), test=()):
    opts = ["MODEL.DETR.NUM_CLASSES", num_classes, "DATASETS.TRAIN", tuple(train), "DATASETS.TEST", tuple(test)]
    return load_config("", opts)


@pytest.mark.parametrize(("name", "expected"), [("classes_3", ["cat", "dog", "cow"]), ("classes_lazy", list("abcd"))])
def test_the_classes_of_a_dataset_are_known_before_or_by_reading_it(name, expected):
    assert dataset_classes(name) == expected


@pytest.mark.parametrize(
    ("num_classes", "train", "expected"),
    [(-1, ["classes_3"], 3), (-1, ["classes_lazy"], 4), (-1, ["classes_3", "classes_2"], 3), (7, ["classes_3"], 7)],
    ids=["counted", "counted_by_reading", "of_the_first", "given"],
)
def test_minus_1_counts_the_first_training_set_and_a_positive_number_stands(num_classes, train, expected):
    assert resolve_num_classes(config(num_classes, train)) == expected


def test_a_given_number_needs_no_dataset():
    assert resolve_num_classes(config(5, train=())) == 5


@pytest.mark.parametrize("num_classes", [0, -2])
def test_neither_positive_nor_minus_1_is_an_error_that_names_it(num_classes):
    with pytest.raises(InputError, match=rf"MODEL\.DETR\.NUM_CLASSES {num_classes}: .*-1 to count"):
        resolve_num_classes(config(num_classes))


def test_counting_without_a_training_set_is_an_error_that_names_both_keys():
    with pytest.raises(InputError, match=r"MODEL\.DETR\.NUM_CLASSES -1 .*DATASETS\.TRAIN is empty"):
        resolve_num_classes(config(-1, train=()))


@pytest.mark.parametrize(
    ("num_classes", "train", "test", "numbers"),
    [
        (2, ["classes_3"], [], "is 2, but dataset classes_3 has 3"),
        (3, ["classes_3"], ["classes_lazy"], "is 3, but dataset classes_lazy has 4"),
        (-1, ["classes_2", "classes_3"], [], "is 2, but dataset classes_3 has 3"),
    ],
    ids=["training_set", "test_set", "second_training_set"],
)
def test_too_few_is_an_error_that_names_both_numbers_and_the_dataset(num_classes, train, test, numbers):
    with pytest.raises(InputError, match=numbers):
        check_num_classes(config(num_classes, train, test))


def test_too_many_is_a_warning_that_names_both_numbers_and_the_dataset(warnings):
    check_num_classes(config(5, ["classes_3"], ["classes_2"]))
    assert len(warnings) == 2
    assert "NUM_CLASSES is 5, dataset classes_3 has 3" in warnings[0] and "the other 2 rows" in warnings[0]
    assert "dataset classes_2 has 2" in warnings[1]


@pytest.mark.parametrize("num_classes", [3, -1], ids=["given", "counted"])
def test_the_right_number_is_silent(warnings, num_classes):
    check_num_classes(config(num_classes, ["classes_3"], ["classes_3"]))
    assert warnings == []


def test_a_model_with_rows_to_spare_knows_its_classes_all_the_same():
    MetadataCatalog.get("classes_3").thing_dataset_id_to_contiguous_id = {7: 0, 3: 1, 20: 2}
    assert model_label_map(config(-1)) == LabelMap((7, 3, 20), ("cat", "dog", "cow"))
    assert model_label_map(config(5)) == LabelMap((7, 3, 20, 21, 22), ("cat", "dog", "cow", "class 3", "class 4"))
    assert model_label_map(config(5, train=())) is None
