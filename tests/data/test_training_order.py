"""The order of the training images, and the random numbers of their augmentation."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2_detr.config import load_config
from d2_detr.data import training_order
from d2_detr.data.loaders import build_train_loader
from d2_detr.data.seeding import seed_generators, seeded
from d2_detr.data.training_order import Sample, TrainingOrder, repeat_factors

from detectron2.data.samplers import TrainingSampler


def take(order, number):
    return list(itertools.islice(order, number))


sizes = st.integers(1, 30)


@given(sizes, st.integers(1, 8), st.integers(0, 2**31 - 1))
def test_images_come_in_the_order_of_detectron2(num_images, batch_size, seed):
    batches = take(TrainingOrder(num_images, batch_size, seed=seed), 3 * num_images // batch_size + 1)
    images = [sample.image for batch in batches for sample in batch]
    assert images == take(TrainingSampler(num_images, seed=seed), len(images))


@given(sizes, st.integers(1, 6), st.integers(0, 60), st.data())
def test_order_continues_from_its_state(num_images, batch_size, before, data):
    wide = data.draw(st.lists(st.booleans(), min_size=num_images, max_size=num_images))
    order = TrainingOrder(num_images, batch_size, seed=1, is_wide=wide.__getitem__)
    take(order, before)
    resumed = TrainingOrder(num_images, batch_size, seed=2, is_wide=wide.__getitem__)
    resumed.load_state_dict(order.state_dict())
    assert take(order, 20) == take(resumed, 20)


@given(sizes, st.integers(1, 6), st.integers(1, 6), st.integers(0, 40), st.data())
def test_no_image_is_lost_if_the_batch_size_changes(num_images, old_size, new_size, before, data):
    wide = data.draw(st.lists(st.booleans(), min_size=num_images, max_size=num_images))
    order = TrainingOrder(num_images, old_size, seed=1, is_wide=wide.__getitem__)
    samples = [sample for batch in take(order, before) for sample in batch]
    resumed = TrainingOrder(num_images, new_size, seed=1, is_wide=wide.__getitem__)
    resumed.load_state_dict(order.state_dict())
    samples += [sample for batch in take(resumed, 3 * num_images // new_size + 1) for sample in batch]
    assert len(samples) == len(set(samples)), "none is used twice"
    waiting = [Sample(*sample) for group in resumed.state_dict()["waiting"] for sample in group]
    used = Counter(sample.epoch for sample in [*samples, *waiting])
    complete = max(used)  # all epochs before the last one
    assert all(used[epoch] == num_images for epoch in range(complete))


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_processes_divide_the_batches_of_one(monkeypatch, world_size):
    alone = take(TrainingOrder(10, 6, seed=1), 12)
    parts = []
    for rank in range(world_size):
        monkeypatch.setattr(training_order.comm, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(training_order.comm, "get_world_size", lambda: world_size)
        parts.append(take(TrainingOrder(10, 6, seed=1), 12))
    for batch, *of_ranks in zip(alone, *parts, strict=True):
        assert sorted(batch) == sorted(itertools.chain(*of_ranks))


def test_batches_do_not_mix_wide_images_with_others():
    wide = [index % 3 == 0 for index in range(20)]
    for batch in take(TrainingOrder(20, 4, seed=1, is_wide=wide.__getitem__), 50):
        assert len({wide[sample.image] for sample in batch}) == 1


def test_other_number_of_images_begins_the_epoch_anew(caplog):
    order = TrainingOrder(10, 2, seed=1)
    take(order, 7)
    resumed = TrainingOrder(8, 2, seed=1)
    resumed.load_state_dict(order.state_dict())
    assert "8 training images now, and 10" in caplog.text
    assert [sample.epoch for batch in take(resumed, 5) for sample in batch] == [1] * 8 + [2] * 2


def test_rare_classes_are_repeated():
    records = [{"annotations": [{"category_id": 0}]}] * 7 + [{"annotations": [{"category_id": 1}]}, {"annotations": []}]
    factors = repeat_factors(records, threshold=0.5)
    assert factors.tolist() == pytest.approx([1.0] * 7 + [(0.5 * 9) ** 0.5, 1.0])
    order = TrainingOrder(9, 1, seed=1, repeat_factors=factors)
    samples = [batch[0] for batch in take(order, 2000)]
    assert len(samples) == len(set(samples)), "a repeated image is augmented differently"
    counts = Counter(sample.image for sample in samples)
    assert counts[7] / counts[0] == pytest.approx((0.5 * 9) ** 0.5, rel=0.1)


# ---- random numbers


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_seeds_depend_on_every_number_of_the_key():
    drawn = set()
    for key in ((1, 2, 3), (3, 2, 1), (1, 2, 4), (1, 2), (1, 2, 3, 1)):
        seed_generators(*key)
        drawn.add(draw())
        with seeded(*key):
            drawn.add(draw())
    assert len(drawn) == 5


def test_seeded_block_leaves_no_trace():
    seed_generators(1)
    first, second = draw(), draw()
    seed_generators(1)
    assert draw() == first
    with seeded(5):
        draw()
    assert draw() == second


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_loader_yields_the_same_with_any_number_of_workers(drawn_balloons, tiny_opts, num_workers, tmp_path):
    """The images are those of a single worker, and the random numbers of the process are not touched."""
    opts = [*tiny_opts, "DATALOADER.NUM_WORKERS", str(num_workers), "SOLVER.IMS_PER_BATCH", "3"]
    cfg = load_config("detr_compact_balloon_drawn.yaml", opts)
    records = [{"file_name": str(index), "width": 1 + index % 2, "height": 1} for index in range(8)]
    torch.manual_seed(0)
    batches = list(itertools.islice(build_train_loader(cfg, records, random_image, seed=5), 12))
    after = torch.rand(1)
    drawn = [(record["file_name"], record["image"]) for batch in batches for record in batch]
    assert drawn == EXPECTED.setdefault("drawn", drawn) and len(drawn) == 36
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))


EXPECTED: dict[str, list] = {}


def random_image(record):
    """Stand for a mapper: return random numbers as an image."""
    return record | {"image": (*draw(), np.random.randint(1000))}
