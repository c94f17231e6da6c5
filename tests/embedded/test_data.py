import itertools
import logging
import pickle

import pytest
import torch

import d2_detr  # noqa: F401  (settles which detectron2 answers)

import detectron2
from detectron2.config import get_cfg
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    MapDataset,
    Metadata,
    MetadataCatalog,
    ToIterableDataset,
    build_batch_data_loader,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.samplers import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm

embedded_only = pytest.mark.skipif("embedded" not in detectron2.__version__, reason="a promise of the embedded part")

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
    """Register a dataset for the time of a test."""
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
def rank_of(monkeypatch):
    def set_rank(rank, world_size):
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: world_size)

    return set_rank


# ---- catalogs


def test_dataset_catalog_calls_the_function_at_every_get(register):
    register("ones", [1])
    assert DatasetCatalog.get("ones") == [1] and "ones" in DatasetCatalog and "ones" in DatasetCatalog.list()


def test_a_dataset_name_is_registered_once(register):
    register("twice", [])
    with pytest.raises(AssertionError, match="twice"):
        DatasetCatalog.register("twice", list)


def test_an_unknown_dataset_is_a_key_error_that_lists_the_known_ones(register):
    register("known_one", [])
    with pytest.raises(KeyError, match="known_one"):
        DatasetCatalog.get("unknown_one")


def test_metadata_can_be_set_again_only_to_the_same_value():
    metadata = Metadata(name="pets").set(thing_classes=CATS)
    metadata.thing_classes = list(CATS)
    with pytest.raises(AssertionError, match="thing_classes"):
        metadata.thing_classes = CATS[:1]
    assert metadata.as_dict() == {"name": "pets", "thing_classes": CATS}


def test_metadata_that_are_not_there_name_the_dataset():
    metadata = Metadata(name="pets")
    assert metadata.get("json_file") is None and metadata.get("json_file", 1) == 1
    assert not hasattr(metadata, "json_file")
    with pytest.raises(AttributeError, match=r"json_file|pets"):
        _ = metadata.json_file


def test_metadata_of_a_name_are_one_object(register):
    register("same", [])
    assert MetadataCatalog.get("same") is MetadataCatalog.get("same")


# ---- samplers


def test_training_sampler_chains_permutations_of_one_generator():
    generator = torch.Generator().manual_seed(3)
    epochs = [torch.randperm(5, generator=generator).tolist() for _ in range(3)]
    assert take(TrainingSampler(5, seed=3), 15) == list(itertools.chain(*epochs))
    assert take(TrainingSampler(3, shuffle=False), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_seed_minus_one_is_a_seed_like_any_other():
    assert take(TrainingSampler(9, seed=-1), 20) == take(TrainingSampler(9, seed=-1), 20)


@pytest.mark.parametrize("size, error", [(0, ValueError), (-1, ValueError), (2.0, TypeError)])
def test_training_sampler_needs_a_positive_int(size, error):
    with pytest.raises(error):
        TrainingSampler(size)


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: TrainingSampler(7, seed=1), id="training"),
        pytest.param(lambda: RandomSubsetTrainingSampler(14, 0.5, seed_shuffle=1, seed_subset=2), id="subset"),
        pytest.param(lambda: RepeatFactorTrainingSampler(torch.tensor([1.5, 1, 2.2]), seed=1), id="repeat"),
    ],
)
def test_ranks_take_turns_in_one_stream(build, rank_of):
    stream = take(build(), 20)
    for rank in (0, 1):
        rank_of(rank, 2)
        assert take(build(), 10) == stream[rank::2]


def test_a_subset_is_the_same_in_every_epoch():
    sampler = RandomSubsetTrainingSampler(10, 0.3, seed_shuffle=0, seed_subset=5)
    expected = torch.randperm(10, generator=torch.Generator().manual_seed(5))[:3].tolist()
    epochs = zip(*[iter(take(sampler, 12))] * 3, strict=True)
    assert all(sorted(epoch) == sorted(expected) for epoch in epochs)


def test_whole_repeat_factors_repeat_exactly():
    sampler = RepeatFactorTrainingSampler(torch.tensor([1.0, 3.0, 2.0]), shuffle=False, seed=0)
    assert take(sampler, 8) == [0, 1, 1, 1, 2, 2, 0, 1]


def test_fractional_repeat_factors_hold_on_average():
    sampler = RepeatFactorTrainingSampler(torch.tensor([1.0, 1.25]), seed=0)
    indices = take(sampler, 4500)
    assert indices.count(1) / indices.count(0) == pytest.approx(1.25, abs=0.05)


@pytest.mark.parametrize("sqrt, rare", [(True, 1.5), (False, 2.25)])
def test_repeat_factor_of_an_image_is_that_of_its_rarest_category(sqrt, rare):
    # category 0 in 3 of 3 images, category 1 in 1 of 3: thresh / f = 0.75 / (1 / 3) = 2.25
    dicts = [image(0, 0, 1), image(1, 0, 0), image(2, 0)]
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dicts, 0.75, sqrt)
    assert factors.tolist() == pytest.approx([rare, 1, 1]) and factors.dtype == torch.float32


@pytest.mark.parametrize("size, world_size, shares", [(7, 3, [3, 2, 2]), (2, 3, [1, 1, 0]), (4, 1, [4])])
def test_inference_samplers_share_every_index_once(size, world_size, shares, rank_of):
    samplers = []
    for rank in range(world_size):
        rank_of(rank, world_size)
        samplers.append(InferenceSampler(size))
    assert [len(s) for s in samplers] == shares
    assert list(itertools.chain(*samplers)) == list(range(size))


# ---- datasets


@pytest.mark.parametrize("serialize", [True, False])
def test_changing_an_element_does_not_change_the_list(serialize):
    dataset = DatasetFromList([{"a": [1]}, {"b": 2}], serialize=serialize)
    dataset[0]["a"].append(2)
    assert [dataset[0], dataset[1]] == [{"a": [1]}, {"b": 2}] and len(dataset) == 2


def test_without_copy_and_serialization_the_elements_themselves_come():
    element = {}
    assert DatasetFromList([element], copy=False, serialize=False)[0] is element


def test_elements_that_map_to_none_are_replaced_or_skipped():
    def odd(x):
        return x if x % 2 else None

    mapped = MapDataset(DatasetFromList(list(range(10))), odd)
    assert [mapped[i] for i in (1, 3)] == [1, 3]
    assert mapped[0] % 2 == 1
    iterable = ToIterableDataset(DatasetFromList(list(range(6))), InferenceSampler(6))
    mapped = MapDataset(iterable, odd)
    assert isinstance(mapped, torch.utils.data.IterableDataset) and list(mapped) == [1, 3, 5]


def test_a_mapped_dataset_can_be_pickled():
    mapped = MapDataset(DatasetFromList([3]), identity)
    assert pickle.loads(pickle.dumps(mapped))[0] == 3


def test_batches_are_all_wide_or_all_not_and_nothing_waits_twice():
    shapes = [(2, 1), (1, 2), (1, 1), (2, 1), (3, 1)]
    dataset = AspectRatioGroupedDataset([{"width": w, "height": h} for w, h in shapes], 2)
    batches = [[(d["width"], d["height"]) for d in batch] for batch in dataset]
    assert batches == [[(1, 2), (1, 1)], [(2, 1), (2, 1)]]


# ---- loaders


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


@pytest.mark.parametrize("drop_last, sizes", [(True, [4, 4]), (False, [4, 4, 2])])
def test_batch_loader_drops_the_incomplete_batch_only_if_told(drop_last, sizes):
    loader = build_batch_data_loader(DatasetFromList(list(range(10))), InferenceSampler(10), 4, drop_last=drop_last)
    assert [len(batch) for batch in loader] == sizes and len(loader) == len(sizes)


def test_total_batch_size_is_shared_by_the_processes(monkeypatch):
    monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: 2)
    dataset, sampler = DatasetFromList(list(range(10))), InferenceSampler(10)
    assert len(next(iter(build_batch_data_loader(dataset, sampler, 4)))) == 2
    with pytest.raises(AssertionError):
        build_batch_data_loader(dataset, sampler, 3)


def test_collate_fn_is_applied_to_grouped_batches():
    dicts = [{"width": 2, "height": 1}] * 4
    loader = build_detection_train_loader(dicts, mapper=identity, total_batch_size=2, collate_fn=len)
    assert take(loader, 3) == [2, 2, 2]


def test_test_loader_gives_every_element_once():
    loader = build_detection_test_loader(list(range(5)), mapper=lambda x: x * 2, batch_size=2)
    assert list(loader) == [[0, 2], [4, 6], [8]]


@pytest.mark.parametrize(
    "sampler", ["TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler", "typo"]
)
def test_config_chooses_dataset_sampler_and_batch_size(register, sampler):
    register("small", [image(i, 0) for i in range(5)] + [image(9, 0, iscrowd=1)], thing_classes=CATS)
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = ("small",)
    cfg.DATALOADER.SAMPLER_TRAIN = sampler
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.4
    cfg.SOLVER.IMS_PER_BATCH = 2
    if sampler == "typo":
        with pytest.raises(ValueError, match="typo"):
            build_detection_train_loader(cfg, mapper=identity)
        return
    batches = take(build_detection_train_loader(cfg, mapper=identity), 10)
    assert {len(batch) for batch in batches} == {2}
    assert len({d["image_id"] for batch in batches for d in batch}) == (2 if sampler.startswith("Random") else 5)
    loader = build_detection_test_loader(cfg, "small", mapper=identity)
    assert [d["image_id"] for (d,) in loader] == [0, 1, 2, 3, 4, 9]


def test_datasets_are_chained_and_images_without_usable_annotations_left_out(register):
    register("a", [image(0, 0), image(1), image(2, 0, iscrowd=1)], thing_classes=CATS)
    register("b", [image(3, 1)], thing_classes=CATS)
    assert [d["image_id"] for d in get_detection_dataset_dicts(["a", "b"])] == [0, 3]
    assert len(get_detection_dataset_dicts(["a", "b"], filter_empty=False)) == 4


def test_datasets_with_different_classes_do_not_mix(register):
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
def test_what_the_loaders_lack_says_how_to_get_it(register):
    register("some", [image(0, 0)])
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = ("some",)
    cfg.DATALOADER.SAMPLER_TRAIN = "WeightedTrainingSampler"
    for call in (
        lambda: build_detection_train_loader(cfg),
        lambda: build_detection_test_loader(cfg, "some"),
        lambda: build_detection_train_loader(cfg, mapper=identity),
        lambda: get_detection_dataset_dicts("some", min_keypoints=1),
    ):
        with pytest.raises(NotImplementedError, match="install the real Detectron2"):
            call()
