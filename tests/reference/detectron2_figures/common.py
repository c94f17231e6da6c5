"""What the groups share: conversion to JSON values, surroundings, inputs."""

from __future__ import annotations

import copy
import json
import logging
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pycocotools.mask as mask_util
import torch

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, BoxMode, ImageList, Instances, PolygonMasks
from detectron2.utils import comm

XYXY, XYWH = BoxMode.XYXY_ABS, BoxMode.XYWH_ABS
TRIANGLE, SQUARE = [1.0, 1, 5, 1, 1, 4], [2, 1, 6, 1, 6, 3, 2, 3]
TIMES = {"time", "data_time", "rank_data_time", "eta_seconds"}

# ---- values


def plain(value: Any) -> Any:
    """Convert to JSON values; arrays keep type and shape, and NaN becomes "nan"."""
    match value:
        case None | bool() | str():
            return value
        case BoxMode():
            return str(BoxMode(value).name)
        case torch.Tensor() | np.ndarray():
            kind = f"{value.dtype} {tuple(value.shape)}".removeprefix("torch.")
            return {kind: plain(value.reshape(-1).tolist())}
        case np.generic():
            return {str(value.dtype): plain(value.item())}
        case float():
            return value if math.isfinite(value) else str(value)
        case int():
            return value
        case bytes():
            return value.decode()
        case Path():
            return str(value)
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple() | range():
            return [plain(item) for item in value]
        case Boxes() | BitMasks():
            return {type(value).__name__: plain(value.tensor)}
        case PolygonMasks():
            return {"PolygonMasks": plain(value.polygons)}
        case Instances():
            return {"image_size": plain(value.image_size), **plain(value.get_fields())}
        case ImageList():
            return {"tensor": plain(value.tensor), "image_sizes": plain(value.image_sizes)}
        case T.Transform():
            return {type(value).__name__: plain(parameters(value))}
    raise TypeError(f"{type(value).__name__} is no figure")


def parameters(transform: T.Transform) -> Any:
    """Return the attributes of a transform, or the transforms of a list."""
    if isinstance(transform, T.TransformList):
        return transform.transforms
    return {key: value for key, value in sorted(vars(transform).items()) if not key.startswith("_") and key != "self"}


# ---- surroundings


@contextmanager
def loggers_as_found() -> Iterator[None]:
    """Restore the loggers at the end of the block."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "d2_detr")]
    found = [(logger.level, logger.propagate, logger.handlers[:]) for logger in loggers]
    try:
        yield
    finally:
        for logger, (level, propagate, handlers) in zip(loggers, found, strict=True):
            logger.setLevel(level)
            logger.propagate, logger.handlers = propagate, handlers


@contextmanager
def logged() -> Iterator[list[str]]:
    """Yield the messages that Detectron2 logs within the block."""
    messages: list[str] = []
    handler, logger = logging.Handler(), logging.getLogger("detectron2")
    handler.emit = lambda record: messages.append(record.getMessage())
    with loggers_as_found():
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        yield messages


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that is removed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="figures_") as folder:
        yield Path(folder)


@contextmanager
def registered(dicts: list[dict], name: str = "figures", **metadata: Any) -> Iterator[str]:
    """Register a dataset for the duration of the block."""
    DatasetCatalog.register(name, lambda: copy.deepcopy(dicts))
    MetadataCatalog.get(name).set(**metadata)
    try:
        yield name
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@contextmanager
def as_rank(rank: int, world_size: int) -> Iterator[None]:
    """Pretend to be one of several processes."""
    with (
        mock.patch.object(comm, "get_rank", lambda: rank),
        mock.patch.object(comm, "get_world_size", lambda: world_size),
    ):
        yield


def refusal(function: Callable, *args: Any, **kwargs: Any) -> str:
    """Return the type of the error that a call raises."""
    try:
        function(*args, **kwargs)
    except Exception as error:
        return type(error).__name__
    return "no error"


# ---- inputs and files


def picture(*shape: int) -> np.ndarray:
    """Return an image of this shape, uint8, without symmetries."""
    return (np.arange(math.prod(shape)) * 37 % 251).astype(np.uint8).reshape(shape)


def compressed(polygon: list, height: int = 8, width: int = 10) -> dict:
    """Return the RLE of a polygon as in a JSON file."""
    rle = mask_util.frPyObjects([polygon], height, width)[0]
    return rle | {"counts": rle["counts"].decode()}


def names_below(folder: Path) -> list[str]:
    """Return the relative paths of all files, without the suffixes of TensorBoard's."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return sorted(re.sub(r"tfevents\..*", "tfevents", name) for name in names)


def metrics_lines(folder: Path) -> list[dict]:
    """Return the lines of metrics.json."""
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def without_times(line: dict) -> dict:
    """Return a line of metrics.json without measured times."""
    return {key: value for key, value in line.items() if key not in TIMES}
