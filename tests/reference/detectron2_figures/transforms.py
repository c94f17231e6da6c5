"""Transforms with given parameters, and the parameters that augmentations sample."""

from __future__ import annotations

import itertools
import sys
import zlib

import numpy as np
from PIL import Image

from tests.reference.detectron2_figures.common import picture

from detectron2.data import transforms as T

POINTS = [[0.0, 0.0], [1.5, 2.25], [6.0, 4.0], [7.0, 5.0]]
BOXES = [[0.0, 0.0, 7.0, 5.0], [1.0, 2.0, 4.0, 3.0], [2.5, 0.5, 2.5, 4.5], [-1.0, 3.0, 9.0, 8.0]]
FILTERS = ("NEAREST", "BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS")


def transforms() -> dict[str, T.Transform]:
    """Return transforms of images of 5 x 7 pixels."""
    upside_down = T.RandomFlip(1.0, horizontal=False, vertical=True).get_transform(picture(5, 7))
    crop = T.CropTransform(2, 1, 4, 3, 7, 5)
    sizes = {"larger": (11, 9), "smaller": (2, 3), "same": (5, 7)}
    resizes = {
        f"resize {name} {filter_name}": T.ResizeTransform(5, 7, *size, getattr(Image.Resampling, filter_name))
        for (name, size), filter_name in itertools.product(sizes.items(), FILTERS)
    }
    return {
        "nothing": T.NoOpTransform(), "left-right": T.HFlipTransform(7), "top-bottom": upside_down, "crop": crop,
        "all": T.TransformList([T.HFlipTransform(7), crop, T.ResizeTransform(3, 4, 6, 10), T.NoOpTransform()]),
        "flips": T.TransformList([T.HFlipTransform(7), upside_down]),
        "resize": T.ResizeTransform(5, 7, 9, 4), **resizes,
    }  # fmt: skip


def transformed_pictures() -> dict:
    shapes = {"grey": (5, 7), "one channel": (5, 7, 1), "colour": (5, 7, 3)}
    return {
        f"{name}, {kind}": {"image": t.apply_image(picture(*shape)), "labels": t.apply_segmentation(picture(5, 7) % 5)}
        for name, t in transforms().items()
        for kind, shape in shapes.items()
    } | {
        f"{name}, fractions": [t.apply_image(picture(*shape) / 8) for shape in shapes.values()]
        for name, t in transforms().items()
        if name.rpartition(" ")[2] not in ("BOX", "HAMMING", "LANCZOS")  # which torch, which resizes floats, lacks
    }


def transformed_coordinates() -> dict:
    figures = {}
    for name, t in transforms().items():
        for dtype in ("float64", "float32", "int64"):
            points, boxes = np.array(POINTS).astype(dtype), np.array(BOXES).astype(dtype)
            figures[f"{name}, {dtype}"] = {
                "box": t.apply_box(boxes.copy()), "one box": t.apply_box(boxes[1:2].copy()),
                "coords": t.apply_coords(points.copy()),
            }  # fmt: skip
        if name not in ("crop", "all"):  # fvcore needs shapely to crop polygons
            figures[f"{name}, polygons"] = t.apply_polygons([np.array(POINTS), np.array(POINTS)[:3]])
        if name in ("nothing", "left-right", "top-bottom", "flips"):
            figures[f"{name}, inverse"] = t.inverse().apply_coords(np.array(POINTS))
    return figures


def sizes_of_shortest_edge() -> dict:
    shape = T.ResizeShortestEdge.get_output_shape
    sides = (1, 3, 64, 427, 641, 2000)
    limits = itertools.product((1, 65, 800), (1, 1333, sys.maxsize))
    figures = {
        f"{short}, at most {longest}": [shape(h, w, short, longest) for h, w in itertools.product(sides, sides)]
        for short, longest in limits
    }
    rng = np.random.RandomState(0)
    drawn = [shape(*map(int, rng.randint(1, 1500, 4))) for _ in range(10000)]
    return figures | {"ten thousand drawn": {"sum": np.sum(drawn, axis=0), "crc": zlib.crc32(str(drawn).encode())}}


def drawn_augmentations() -> dict:
    """Return the samples, and the next random number, which shows how many were used."""
    augmentations = {
        **{f"flip with {prob}": T.RandomFlip(prob) for prob in (0.0, 0.3, 0.5, 1.0)},
        "vertical flip": T.RandomFlip(horizontal=False, vertical=True),
        "one length": T.ResizeShortestEdge(12), "no length": T.ResizeShortestEdge(0),
        "range": T.ResizeShortestEdge((5, 16), 20), "choice": T.ResizeShortestEdge((5, 9, 16), 20, "choice"),
        "nearest": T.ResizeShortestEdge((5, 9), sample_style="choice", interp=Image.NEAREST),
    }  # fmt: skip
    figures = {}
    for name, augmentation in augmentations.items():
        np.random.seed(5)
        drawn = [augmentation.get_transform(picture(10, 14)) for _ in range(12)]
        figures[name] = {"repr": repr(augmentation), "drawn": drawn, "next": float(np.random.rand())}
    aug_input = T.AugInput(picture(5, 7, 3), boxes=np.array(BOXES))
    done = aug_input.apply_augmentations([T.HFlipTransform(7), T.ResizeShortestEdge(10)])
    figures["transforms and augmentations"] = {"done": done, "image": aug_input.image, "boxes": aug_input.boxes}
    return figures | {"a list": [augmented(seed) for seed in range(4)]}


def augmented(seed: int) -> dict:
    np.random.seed(seed)
    augmentations = [T.RandomFlip(), T.ResizeShortestEdge((4, 8)), T.RandomFlip(horizontal=False, vertical=True)]
    aug_input = T.AugInput(picture(5, 7, 3), boxes=np.array(BOXES), sem_seg=picture(5, 7) % 5)
    done = T.AugmentationList(augmentations)(aug_input)
    return {"done": done, "image": aug_input.image, "boxes": aug_input.boxes, "sem_seg": aug_input.sem_seg}


GROUPS = (transformed_pictures, transformed_coordinates, sizes_of_shortest_edge, drawn_augmentations)
