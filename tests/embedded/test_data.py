import itertools
import logging

import pytest
import torch

import d2_detr  # noqa: F401  (selects the detectron2 to import)

import detectron2
from detectron2.config import get_cfg
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    MapDataset,
    Metadata,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.common import AspectRatioGroupedDataset, ToIterableDataset
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.utils import comm

embedded_only = pytest.mark.skipif(
    "embedded" not in detectron2.__version__, reason="only the embedded detectron2 promises it"
)

CATS = ["cat", "a name of more than 13 letters"]


def take(iterable, n):
    return list(itertools.islice(iterable, n))


def identity(x):
    return x


def image(i, *category_ids, iscrowd=0, width=2, height=1):
    annotations = [{"category_id": c, "iscrowd": iscrowd} for c in category_ids]
    return {"image_id": i, "width": width, "height": height, "annotations": annotations}


@pytest.fixture
def register():
    """Register datasets for the duration of a test."""
    names = []

    def register(name, dicts, **metadata):
        names.append(name)
        DatasetCatalog.register(name, lambda: dicts)
        MetadataCatalog.get(name).set(**metadata)

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def set_rank_and_size(monkeypatch):
    def set_rank(rank, world_size):
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: world_size)

    return set_rank


def test_a_dataset_is_registered_once_and_looked_up_by_name(register):
    register("ones", [1])
    assert DatasetCatalog.get("ones") == [1] and "ones" in DatasetCatalog and "ones" in DatasetCatalog.list()
    assert MetadataCatalog.get("ones") is MetadataCatalog.get("ones")
    with pytest.raises(AssertionError, match="ones"):
        DatasetCatalog.register("ones", list)
    with pytest.raises(KeyError, match="ones"):
        DatasetCatalog.get("unknown_one")


def test_a_dataset_must_be_registered_as_a_function():
    with pytest.raises(AssertionError, match="function"):
        DatasetCatalog.register("a_list", [1])
    assert "a_list" not in DatasetCatalog


def test_metadata_cannot_change_once_set():
    metadata = Metadata(name="pets").set(thing_classes=CATS)
    metadata.thing_classes = list(CATS)
    with pytest.raises(AssertionError, match="thing_classes"):
        metadata.thing_classes = CATS[:1]
    assert metadata.thing_classes == CATS


def test_an_error_about_missing_metadata_names_the_dataset():
    metadata = Metadata(name="pets")
    assert metadata.get("json_file") is None and metadata.get("json_file", 1) == 1
    assert not hasattr(metadata, "json_file")
    with pytest.raises(AttributeError, match=r"json_file|pets"):
        _ = metadata.json_file


def test_training_sampler_chains_permutations_of_one_generator():
    generator = torch.Generator().manual_seed(3)
    epochs = [torch.randperm(5, generator=generator).tolist() for _ in range(3)]
    assert take(TrainingSampler(5, seed=3), 15) == list(itertools.chain(*epochs))
    assert take(TrainingSampler(3, shuffle=False), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_training_sampler_needs_a_positive_size():
    with pytest.raises(ValueError):
        TrainingSampler(0)


def test_ranks_read_alternate_indices_of_one_stream(set_rank_and_size):
    stream = take(TrainingSampler(7, seed=1), 20)
    for rank in (0, 1):
        set_rank_and_size(rank, 2)
        assert take(TrainingSampler(7, seed=1), 10) == stream[rank::2]


@pytest.mark.parametrize("size, world_size, shares", [(7, 3, [3, 2, 2]), (2, 3, [1, 1, 0]), (4, 1, [4])])
def test_inference_samplers_partition_the_indices(size, world_size, shares, set_rank_and_size):
    samplers = []
    for rank in range(world_size):
        set_rank_and_size(rank, world_size)
        samplers.append(InferenceSampler(size))
    assert [len(s) for s in samplers] == shares
    assert list(itertools.chain(*samplers)) == list(range(size))


def test_changing_an_element_does_not_change_the_list():
    dataset = DatasetFromList([{"a": [1]}, {"b": 2}])
    dataset[0]["a"].append(2)
    assert [dataset[0], dataset[1]] == [{"a": [1]}, {"b": 2}] and len(dataset) == 2


@pytest.mark.parametrize("copy, protected", [(True, True), (False, False)])
def test_an_unserialized_list_is_protected_by_copies(copy, protected):
    original = [{"a": [1]}]
    dataset = DatasetFromList(original, copy=copy, serialize=False)
    dataset[0]["a"].append(2)
    assert (original == [{"a": [1]}]) == protected


def test_a_list_can_be_serialized_by_a_custom_function():
    dataset = DatasetFromList([1, 2, 3], serialize=torch.tensor)
    assert torch.equal(dataset[2], torch.tensor(3)) and len(dataset) == 3


def test_elements_that_map_to_none_are_replaced():
    mapped = MapDataset(DatasetFromList(list(range(10))), lambda x: x if x % 2 else None)
    assert [mapped[i] for i in (1, 3)] == [1, 3]
    assert mapped[0] % 2 == 1


def test_no_batch_mixes_wide_images_with_others():
    shapes = [(2, 1), (1, 2), (1, 1), (2, 1), (3, 1)]
    dataset = AspectRatioGroupedDataset([{"width": w, "height": h} for w, h in shapes], 2)
    batches = [[(d["width"], d["height"]) for d in batch] for batch in dataset]
    assert batches == [[(1, 2), (1, 1)], [(2, 1), (2, 1)]]


def test_elements_of_an_incomplete_batch_are_kept():
    dataset = AspectRatioGroupedDataset([{"width": w, "height": 1} for w in (1, 2, 2)], 2)
    assert next(iter(dataset)) == [{"width": 2, "height": 1}] * 2
    assert next(iter(dataset)) == [{"width": 1, "height": 1}] * 2


@pytest.mark.parametrize("shard_sampler, read", [(True, [0, 1, 2, 3]), (False, [0, 0, 1, 1, 2, 2, 3, 3])])
def test_shard_sampler_splits_the_indices_among_workers(shard_sampler, read):
    dataset = ToIterableDataset([0, 1, 2, 3], torch.utils.data.SequentialSampler(range(4)), shard_sampler)
    assert sorted(torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2)) == read


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_do_not_change_the_order_of_training_batches(num_workers):
    loader = build_detection_train_loader(
        list(range(10)),
        mapper=identity,
        sampler=TrainingSampler(10, seed=7),
        total_batch_size=3,
        aspect_ratio_grouping=False,
        num_workers=num_workers,
    )
    assert list(itertools.chain(*take(loader, 5))) == take(TrainingSampler(10, seed=7), 15)


def test_total_batch_size_is_divided_among_the_processes(monkeypatch):
    monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: 2)
    arguments = {"mapper": identity, "aspect_ratio_grouping": False}
    assert len(next(iter(build_detection_train_loader(list(range(10)), total_batch_size=4, **arguments)))) == 2
    with pytest.raises(AssertionError):
        build_detection_train_loader(list(range(10)), total_batch_size=3, **arguments)


def test_test_loader_yields_every_element_once():
    loader = build_detection_test_loader(list(range(5)), mapper=lambda x: x * 2, batch_size=2)
    assert list(loader) == [[0, 2], [4, 6], [8]]


def test_loaders_accept_a_sampler_and_need_no_mapper():
    backwards = [3, 2, 1, 0]
    assert list(build_detection_test_loader([*"abcd"], mapper=None, sampler=backwards)) == [["d"], ["c"], ["b"], ["a"]]
    loader = build_detection_train_loader(
        [*"abcd"],
        mapper=None,
        sampler=torch.utils.data.SubsetRandomSampler([2]),
        total_batch_size=1,
        aspect_ratio_grouping=False,
        pin_memory=False,
    )
    assert list(loader) == [["c"]]


def test_a_given_sampler_overrides_the_config(register):
    register("sampled", [image(i, 0) for i in range(5)])
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = ("sampled",)
    cfg.DATALOADER.SAMPLER_TRAIN = "mine"
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 2
    sampler = TrainingSampler(5, shuffle=False)
    batches = take(build_detection_train_loader(cfg, mapper=identity, sampler=sampler), 2)
    assert [d["image_id"] for batch in batches for d in batch] == [0, 1, 2, 3]


def test_config_determines_dataset_order_and_batch_size(register):
    register("small", [image(i, 0) for i in range(5)] + [image(9, 0, iscrowd=1)], thing_classes=CATS)
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = ("small",)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SEED = 3
    batches = take(build_detection_train_loader(cfg, mapper=identity), 5)
    assert {len(batch) for batch in batches} == {2}
    assert [d["image_id"] for batch in batches for d in batch] == take(TrainingSampler(5, seed=3), 10)
    loader = build_detection_test_loader(cfg, "small", mapper=identity)
    assert [d["image_id"] for (d,) in loader] == [0, 1, 2, 3, 4, 9]


def test_datasets_are_joined_without_empty_and_crowd_only_images(register):
    register("a", [image(0, 0), image(1), image(2, 0, iscrowd=1)], thing_classes=CATS)
    register("b", [image(3, 1)], thing_classes=CATS)
    assert [d["image_id"] for d in get_detection_dataset_dicts(["a", "b"])] == [0, 3]
    assert len(get_detection_dataset_dicts(["a", "b"], filter_empty=False)) == 4


def test_datasets_with_different_classes_are_refused(register):
    register("cats", [image(0, 0)], thing_classes=["cat"])
    register("dogs", [image(0, 0)], thing_classes=["dog"])
    with pytest.raises(ValueError, match="thing_classes"):
        get_detection_dataset_dicts(["cats", "dogs"])


def test_an_empty_dataset_is_refused(register):
    register("void", [])
    with pytest.raises(AssertionError, match="void"):
        get_detection_dataset_dicts("void")


def test_instances_are_counted_per_class_without_crowds(register, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    register("counted", [image(0, 0, 0, 1), image(1, 1, iscrowd=1)], thing_classes=CATS)
    with caplog.at_level(logging.INFO):
        get_detection_dataset_dicts("counted", filter_empty=False)
    cells = [cell.strip() for cell in caplog.messages[-1].split("|")]
    counts = {name: int(cells[cells.index(name) + 1]) for name in ("cat", "a name of m..", "total")}
    assert counts == {"cat": 2, "a name of m..": 1, "total": 3}


@embedded_only
def test_unsupported_loader_options_are_refused_with_a_hint(register):
    register("some", [image(0, 0)])
    register("torch", DatasetFromList([1]))
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = ("some",)
    cfg.DATALOADER.SAMPLER_TRAIN = "WeightedTrainingSampler"
    for call in (
        lambda: build_detection_test_loader(cfg, "some"),
        lambda: build_detection_train_loader(cfg, mapper=identity),
        lambda: build_detection_train_loader(cfg, sampler=TrainingSampler(1)),
        lambda: build_detection_test_loader(ToIterableDataset([1], TrainingSampler(1)), mapper=identity),
        lambda: get_detection_dataset_dicts("torch"),
    ):
        with pytest.raises(NotImplementedError, match="install the real Detectron2"):
            call()
