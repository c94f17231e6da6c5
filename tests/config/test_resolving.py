"""Resolution of values that a config leaves open: class count and schedule."""

import pytest

from d2_detr.config import load_config, resolve_config
from d2_detr.config import resolving as module
from d2_detr.config.resolving import Schedule, resolve_num_classes, resolve_schedule, resolve_seed
from d2_detr.structures.dataset import Dataset, Datasets
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError

from detectron2.data import Metadata

NAMES = ("cat", "dog", "cow", "owl")


def dataset(num_classes, num_images=1, annotations=()):
    records = [{"image_id": i, "annotations": list(annotations)} for i in range(num_images)]
    label_map = LabelMap(tuple(range(num_classes)), NAMES[:num_classes])
    return Dataset(f"set_{num_classes}", f"set_{num_classes}", records, label_map, Metadata())


def datasets(train=(), test=()):
    return Datasets([dataset(number) for number in train], [dataset(number) for number in test])


def config(**keys):
    opts = [part for key, value in keys.items() for part in (key.replace("__", "."), str(value))]
    return load_config("", ["MODEL.META_ARCHITECTURE", "Detr", *opts])


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr(module.logger, "warning", lambda message, *args: messages.append(message % args))
    return messages


# ---- classes


@pytest.mark.parametrize(
    ("num_classes", "train", "test", "expected"),
    [(-1, [3], [], 3), (-1, [3, 2], [3], 3), (7, [3], [], 7), (5, [], [], 5), (-1, [], [2], 2)],
    ids=["counted", "first_of_two", "given", "without_data", "evaluation"],
)
def test_minus_1_counts_classes_and_other_numbers_stay(num_classes, train, test, expected):
    cfg = config(MODEL__DETR__NUM_CLASSES=num_classes)
    assert resolve_num_classes(cfg, datasets(train, test)) == expected


@pytest.mark.parametrize("num_classes", [0, -2])
def test_invalid_class_count_is_an_error_with_its_key(num_classes):
    with pytest.raises(InputError, match=rf"MODEL\.DETR\.NUM_CLASSES {num_classes}: .*-1 to count"):
        resolve_num_classes(config(MODEL__DETR__NUM_CLASSES=num_classes), datasets([3]))


def test_counting_classes_without_data_is_an_error():
    with pytest.raises(InputError, match=r"MODEL\.DETR\.NUM_CLASSES -1 .*DATASETS\.TRAIN is empty"):
        resolve_num_classes(config(MODEL__DETR__NUM_CLASSES=-1), datasets())


@pytest.mark.parametrize(
    ("num_classes", "train", "test", "message"),
    [
        (2, [3], [], "is 2, but dataset set_3 has 3"),
        (3, [3], [4], "is 3, but dataset set_4 has 4"),
        (-1, [2, 3], [], "is 2, but dataset set_3 has 3"),
    ],
    ids=["training_set", "test_set", "second_training_set"],
)
def test_too_few_classes_are_an_error(num_classes, train, test, message):
    with pytest.raises(InputError, match=message):
        resolve_num_classes(config(MODEL__DETR__NUM_CLASSES=num_classes), datasets(train, test))


def test_too_many_classes_are_a_warning_for_each_dataset(warnings):
    resolve_num_classes(config(MODEL__DETR__NUM_CLASSES=5), datasets([3], [2]))
    assert len(warnings) == 2
    assert "NUM_CLASSES is 5, but dataset set_3 has 3" in warnings[0] and "the other 2 rows" in warnings[0]
    assert "dataset set_2 has 2" in warnings[1]


@pytest.mark.parametrize("num_classes", [3, -1], ids=["given", "counted"])
def test_correct_class_count_is_not_warned_about(warnings, num_classes):
    resolve_num_classes(config(MODEL__DETR__NUM_CLASSES=num_classes), datasets([3], [3]))
    assert warnings == []


def test_spare_rows_of_a_class_head_get_names_and_unused_ids():
    known = LabelMap((7, 3, 20), ("cat", "dog", "cow"))
    assert known.extended(3) == known
    assert known.extended(5) == LabelMap((7, 3, 20, 21, 22), ("cat", "dog", "cow", "class 3", "class 4"))


# ---- schedule


def test_epochs_become_iterations_and_fractions_become_steps():
    cfg = config(SOLVER__MAX_EPOCHS=10, SOLVER__IMS_PER_BATCH=2, SOLVER__STEPS=(0.5, 0.8))
    assert resolve_schedule(cfg, 61) == Schedule(305, (152, 244), 0, 30.5)  # 10 x 61 / 2


def test_resolved_config_keeps_epochs_and_can_be_extended():
    data = Datasets([dataset(3, num_images=61)], [])
    cfg = config(
        MODEL__DETR__NUM_CLASSES=-1, SOLVER__MAX_EPOCHS=10, SOLVER__IMS_PER_BATCH=2, SOLVER__STEPS=(0.8,),
        TEST__EVAL_EPOCHS=1, DATALOADER__FILTER_EMPTY_ANNOTATIONS=False,
    )  # fmt: skip
    written = resolve_config(cfg, data)
    assert (written.MODEL.DETR.NUM_CLASSES, written.SOLVER.MAX_ITER) == (3, 305)
    assert (written.SOLVER.MAX_EPOCHS, written.SOLVER.STEPS, written.TEST.EVAL_EPOCHS) == (10, (0.8,), 1)
    assert resolve_config(written, data) == written, "it reproduces the run"
    written.SOLVER.MAX_EPOCHS = 20
    longer = resolve_config(written, data)
    assert longer.SOLVER.MAX_ITER == 610 and resolve_schedule(longer, 61) == Schedule(610, (488,), 31, 30.5)


def test_eval_period_in_iterations_overrides_eval_epochs():
    cfg = config(SOLVER__MAX_ITER=100, SOLVER__IMS_PER_BATCH=4, SOLVER__STEPS=(), TEST__EVAL_EPOCHS=2)
    assert resolve_schedule(cfg, 61).eval_period == 31  # 2 x 61 / 4
    cfg.TEST.EVAL_PERIOD = 7
    assert resolve_schedule(cfg, 61).eval_period == 7


def test_without_epochs_the_schedule_is_unchanged():
    cfg = config(SOLVER__MAX_ITER=7, SOLVER__STEPS=(5,))
    assert resolve_schedule(cfg, 61).max_iter == 7 and resolve_schedule(cfg, 61).steps == (5,)


@pytest.mark.parametrize(
    ("epochs", "steps"), [(10, (369600,)), (0, (0.5,)), (10, (0.5, 100)), (-1, ())],
    ids=["iterations_with_epochs", "fractions_without_epochs", "mixed", "negative"],
)  # fmt: skip
def test_a_contradictory_schedule_is_refused(epochs, steps):
    with pytest.raises(InputError, match=r"SOLVER\.(STEPS|MAX_EPOCHS)"):
        resolve_schedule(config(SOLVER__MAX_EPOCHS=epochs, SOLVER__STEPS=steps), 61)


def test_a_step_at_the_end_has_no_effect():
    assert resolve_schedule(config(SOLVER__MAX_ITER=7, SOLVER__STEPS=(5, 7)), 61).steps == (5,)


# ---- seed


def test_resumed_training_keeps_its_seed(tmp_path):
    (tmp_path / "config.yaml").write_text("SEED: 7\n")
    assert resolve_seed(config(OUTPUT_DIR=tmp_path), resume=True) == 7
    assert resolve_seed(config(OUTPUT_DIR=tmp_path, SEED=3), resume=True) == 3


@pytest.mark.parametrize("content", ["SEED: x\n", "SEED: [\n", "", "x", "SEED: \xff"], ids=repr)
def test_a_damaged_config_of_a_resumed_training_is_refused(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"config\.yaml"):
        resolve_seed(config(OUTPUT_DIR=tmp_path), resume=True)
