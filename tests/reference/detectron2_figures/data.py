"""Samplers, loaders, COCO files and the built-in datasets."""

from __future__ import annotations

import itertools
import json
import os
import re
from typing import Any

import numpy as np

from tests.reference.detectron2_figures.common import (
    SQUARE,
    TRIANGLE,
    XYWH,
    XYXY,
    as_rank,
    compressed,
    logged,
    refusal,
    registered,
    temporary_folder,
)
from tests.reference.detectron2_figures.config import merged

from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    MapDataset,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
    print_instances_class_histogram,
)
from detectron2.data.datasets import convert_to_coco_json, load_coco_json, register_coco_instances
from detectron2.data.samplers import InferenceSampler, TrainingSampler


def order_of_samplers() -> dict:
    figures = {}
    for size, world_size, shuffle in itertools.product((1, 5, 8), (1, 2, 3, 9), (True, False)):
        for rank in range(world_size):
            with as_rank(rank, world_size):
                stream = iter(TrainingSampler(size, shuffle, seed=size + 40))
            name = f"training, {size} elements, rank {rank} of {world_size}, shuffle {shuffle}"
            figures[name] = list(itertools.islice(stream, 12))
    for size, world_size in itertools.product((1, 2, 7, 8, 100), (1, 2, 3, 8)):
        figures[f"inference, {size} elements on {world_size}"] = inference_shares(size, world_size)
    np.random.seed(3)
    return figures | {
        "training without a seed": list(itertools.islice(TrainingSampler(6), 18)),
        "training with nothing": refusal(TrainingSampler, 0),
    }


def inference_shares(size: int, world_size: int) -> list:
    """Return, for each rank, the number of its indices, the first and the last."""
    shares = []
    for rank in range(world_size):
        with as_rank(rank, world_size):
            sampler = InferenceSampler(size)
        indices = list(sampler)
        shares.append([len(sampler), *indices[:1], *indices[-1:]])
    return shares


def image_dict(image_id: int, *category_ids: int, iscrowd: int = 0, wide: bool = True) -> dict:
    annotations = [{"category_id": category_id, "iscrowd": iscrowd} for category_id in category_ids]
    width, height = (4, 3) if wide else (3, 4)
    return {"image_id": image_id, "width": width, "height": height, "annotations": annotations}


def batches_of_loaders() -> dict:
    dicts = [image_dict(i, *range(i % 3), iscrowd=int(i == 4), wide=i % 5 < 3) for i in range(13)]
    figures = {}
    with registered(dicts, thing_classes=["a", "b"]) as name:
        for grouped, filtered, workers in itertools.product((True, False), (True, False), (0, 2)):
            cfg = merged({"SOLVER.IMS_PER_BATCH": "3", "SEED": "5", "DATASETS.TRAIN": f"('{name}',)"})
            cfg.DATALOADER.ASPECT_RATIO_GROUPING, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = grouped, filtered
            cfg.DATALOADER.NUM_WORKERS = workers
            loader = build_detection_train_loader(cfg, mapper=as_it_is)
            figures[f"train, {grouped=}, {filtered=}, {workers=}"] = image_ids(itertools.islice(loader, 12))
            figures[f"test, {workers=}"] = image_ids(build_detection_test_loader(cfg, name, mapper=as_it_is))
        loader = build_detection_test_loader(dicts, mapper=as_it_is, batch_size=5)
        figures |= {"test, five at a time": image_ids(loader), "test, length": len(loader)}
        options = {"mapper": as_it_is, "sampler": TrainingSampler(13, seed=9), "total_batch_size": 3}
        loader = build_detection_train_loader(dicts, **options, aspect_ratio_grouping=False)
        figures["train, in an order of one's own"] = image_ids(itertools.islice(loader, 5))
        options = {"mapper": as_it_is, "sampler": [5, 3, 5]}
        figures["test, in an order of one's own"] = image_ids(build_detection_test_loader(dicts, **options))
        figures["usable"] = [d["image_id"] for d in get_detection_dataset_dicts(name)]
    with logged() as messages:
        print_instances_class_histogram(dicts, ["a", "a name of many letters"])
    figures["counts"] = re.findall(r"\d+", messages[-1].partition("|")[2])
    figures["with gaps"] = [elements_with_gaps(gap) for gap in (2, 3, 9)]
    kinds = itertools.product((True, False), repeat=2)
    return figures | {f"changed, {copy=}, {serialize=}": elements_changed(copy, serialize) for copy, serialize in kinds}


def as_it_is(image: dict) -> dict:
    return image


def image_ids(batches: Any) -> list:
    return [[image["image_id"] for image in batch] for batch in batches]


def elements_with_gaps(gap: int) -> list:
    """Map every `gap`-th element to None, so that it is replaced."""
    mapped = MapDataset(DatasetFromList(list(range(20))), lambda x: None if x % gap == 0 else x)
    return [mapped[i] for i in range(len(mapped))]


def elements_changed(copy: bool, serialize: bool) -> list:
    """Change an element of a dataset; return it, and the one in the original list."""
    elements = [[1], [2]]
    dataset = DatasetFromList(elements, copy=copy, serialize=serialize)
    dataset[1].append(3)
    return [dataset[1], elements[1]]


CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 90, "name": "cow"}]


def small_coco() -> dict:
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 8, "width": 10} for i in (20, 10, 15)]
    box = {"iscrowd": 0, "image_id": 20, "bbox": [1.5, 2, 3, 4], "area": 12, "note": "left out"}
    uncompressed = {"size": [8, 10], "counts": [26, 2, 6, 2, 6, 2, 36]}
    annotations = [
        {"category_id": 7}, {"category_id": 3, "segmentation": [TRIANGLE, SQUARE]}, {"category_id": 90, "iscrowd": 1},
        {"category_id": 3, "segmentation": [[1, 2, 3, 4], TRIANGLE]}, {"category_id": 3, "segmentation": [[1, 2]]},
        {"category_id": 7, "segmentation": compressed(SQUARE), "image_id": 10}, {"category_id": 7, "segmentation": []},
        {"category_id": 90, "segmentation": uncompressed, "image_id": 10, "iscrowd": 1},
    ]  # fmt: skip
    numbered = [box | annotation | {"id": number} for number, annotation in enumerate(annotations, start=100)]
    return {"images": images, "annotations": numbered, "categories": CATEGORIES}


def coco_files() -> dict:
    figures = {}
    with temporary_folder() as folder:
        path = folder / "small.json"
        path.write_text(json.dumps(small_coco()))
        figures["without a name"] = load_coco_json(str(path), "root")
        register_coco_instances("figures_coco", {"colour": "red"}, str(path), "root")
        figures["by name"] = DatasetCatalog.get("figures_coco")
        figures["metadata"] = vars(MetadataCatalog.get("figures_coco")) | {"json_file": path.name}
        convert_to_coco_json("figures_coco", str(folder / "new" / "written.json"))
        figures["written"] = json.loads((folder / "new" / "written.json").read_text())
        figures["written"].pop("info")
        for catalog in (DatasetCatalog, MetadataCatalog):
            catalog.remove("figures_coco")
    with registered(dicts_in_memory(), thing_classes=["a", "b"]) as name, temporary_folder() as folder:
        convert_to_coco_json(name, str(folder / "written.json"))
        figures["written from dicts"] = json.loads((folder / "written.json").read_text())
        figures["written from dicts"].pop("info")
    return figures


def dicts_in_memory() -> list[dict]:
    """Return dataset dicts as users write them: with arrays and corners, without ids."""
    box = {"bbox": np.array([1.25, 2.5, 4.0, 6.0]), "bbox_mode": XYXY, "category_id": 1}
    whole = {"bbox": [1, 2, 4, 6], "bbox_mode": XYWH, "category_id": 0, "iscrowd": 1}
    masked = [box | {"segmentation": [TRIANGLE, SQUARE]}, whole | {"segmentation": compressed(SQUARE)}]
    return [
        {"file_name": "a.jpg", "height": 8, "width": 10, "annotations": [box, whole]},
        {"file_name": "b.jpg", "height": 8, "width": 10, "annotations": masked},
        {"file_name": "c.jpg", "height": 8, "width": 10, "annotations": []},
    ]


def builtin_datasets() -> dict:
    figures = {}
    for split in ("train", "val", "test", "test-dev", "val_100"):
        metadata = dict(vars(MetadataCatalog.get(f"coco_2017_{split}")))
        root = os.path.commonpath([metadata["json_file"], metadata["image_root"]])
        for key in ("json_file", "image_root"):
            metadata[key] = os.path.relpath(metadata[key], root)
        facts = {key: metadata.pop(key) for key in ("thing_classes", "thing_colors") if split != "val"}
        ids = metadata.pop("thing_dataset_id_to_contiguous_id")
        figures[split] = metadata | {"ids": [*ids, *ids.values()], "known": list(facts)}
    return figures


GROUPS = (order_of_samplers, batches_of_loaders, coco_files, builtin_datasets)
