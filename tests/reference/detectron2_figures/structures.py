"""Boxes, masks, instances and padded images."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch

from tests.reference.detectron2_figures.common import SQUARE, TRIANGLE, XYWH, XYXY, refusal

from detectron2.structures import BitMasks, Boxes, BoxMode, ImageList, Instances, PolygonMasks, polygons_to_bitmask

INDICES = {
    "1": 1, "-1": -1, "a slice": slice(1, 3), "all": slice(None), "none": slice(0, 0),
    "a mask": torch.tensor([True, False, True, False]), "an order": torch.tensor([3, 0, 0]),
}  # fmt: skip
NESTED = {"nested list": [[1, 2, 3, 4]], "three numbers": [1, 2, 3]}


def boxes_converted() -> dict:
    box = [5.25, 6.0, 15.5, 26.125]
    forms = {
        "list": box, "tuple": tuple(box), "integers": [5, 6, 15, 26], "array": np.array([box, box]),
        "array of integers": np.array([[5, 6, 15, 26]]),
        "tensor": torch.tensor([box, box]), "tensor of doubles": torch.tensor([box], dtype=torch.float64),
        "tensor of integers": torch.tensor([[5, 6, 15, 26]]), "none": torch.zeros(0, 4),
        "precise": [0.1, 1 / 3, 1e6 + 0.123, 2e6 + 0.456],
    }  # fmt: skip
    figures = {"modes": {mode.name: int(mode) for mode in BoxMode}}
    for (name, given), (source, target) in itertools.product(forms.items(), itertools.permutations((XYXY, XYWH))):
        converted = BoxMode.convert(given, source, target)
        kept = BoxMode.convert(given, source, source)
        figures[f"{name} to {target.name}"] = {"type": type(converted).__name__, "value": converted, "kept": kept}
    return figures | {name: refusal(BoxMode.convert, wrong, XYXY, XYWH) for name, wrong in NESTED.items()}


def operations_on_boxes() -> dict:
    source = torch.tensor([[0.0, 0, 2, 3], [4, 4, 4, 9], [-1, -1, 20, 30], [2.5, 3, 7.75, 8]])
    boxes, clipped, scaled = Boxes(source.clone()), Boxes(source.clone()), Boxes(source.clone())
    clipped.clip((10, 5))
    scaled.scale(2, 0.5)
    shared = Boxes(source)
    shared.scale(10, 10)
    return {
        "boxes": boxes, "from a list": Boxes([[1, 2, 3, 4]]), "from an array": Boxes(np.array([[1, 2, 3, 4]])),
        "area": boxes.area(), "clipped": clipped, "scaled": scaled, "source of what is scaled": source,
        "nonempty": [boxes.nonempty(threshold) for threshold in (0.0, 2, 5.25)],
        "cat": Boxes.cat([boxes, Boxes([[0, 0, 1, 1]])]), "cat of nothing": Boxes.cat([]),
        "empty": [Boxes(torch.empty(0)), Boxes([]), Boxes(torch.empty(0, 4))], "area of none": Boxes([]).area(),
        "indexed": {name: boxes[index] for name, index in INDICES.items()}, "iterated": list(boxes),
        "length": len(boxes), "repr": repr(boxes), "device": str(boxes.device), "moved": boxes.to("cpu"),
        "refused": [refusal(Boxes, wrong) for wrong in (torch.zeros(2, 5), torch.zeros(4), torch.zeros(1, 1, 4))],
        "infinite": refusal(Boxes([[0, 0, math.inf, 1]]).clip, (5, 5)),
    }  # fmt: skip


def some_instances() -> Instances:
    instances = Instances((8, 10), boxes=Boxes(torch.arange(16.0).reshape(4, 4)), scores=torch.arange(4) / 8)
    instances.masks = PolygonMasks([[TRIANGLE], [SQUARE, TRIANGLE], [], [SQUARE]])
    return instances


def operations_on_instances() -> dict:
    one, named = some_instances(), some_instances()
    named.remove("masks")
    named.names = [*"abcd"]
    return {
        "instances": one, "length": len(one), "repr": repr(named), "fields": [one.has("scores"), one.has("names")],
        "indexed": {name: one[index] for name, index in INDICES.items()}, "moved": one.to("cpu"),
        "cat": Instances.cat([one, one[1:3]]), "cat of lists": Instances.cat([named, named]),
        "cat of one": Instances.cat([one]), "get": one.get("scores"),
        "too far": [refusal(one.__getitem__, index) for index in (4, -5)],
        "a field of another length": refusal(one.set, "more", [1]),
        "no such field": [refusal(getattr, one, "more"), refusal(one.get, "more"), refusal(one.remove, "more")],
        "of other sizes": refusal(Instances.cat, [one, Instances((1, 1), scores=torch.zeros(1))]),
        "without fields": refusal(len, Instances((1, 1))), "iterated": refusal(iter, one),
    }  # fmt: skip


def operations_on_masks() -> dict:
    polygons = some_instances().masks
    drawn = np.stack([polygons_to_bitmask(instance, 8, 10) for instance in polygons])
    bitmaps = BitMasks(torch.from_numpy(drawn))
    slanted = [np.array(p) for p in ([0.3, 0.2, 9.7, 3.1, 4.4, 7.9], [-3.0, 2, 5, 2, 5, 20], [1, 1, 1, 1, 1, 1])]
    return {
        "drawn": drawn, "slanted": polygons_to_bitmask(slanted, 8, 10), "of shapes": BitMasks(drawn.astype(np.uint8)),
        "polygons": {
            "area": polygons.area(), "nonempty": polygons.nonempty(), "length": len(polygons), "repr": repr(polygons),
            "cat": PolygonMasks.cat([polygons, polygons[1]]), "device": str(polygons.device),
            "indexed": {name: polygons[index] for name, index in INDICES.items()}, "by list": polygons[[2, 1]],
            "area of drawn edges": PolygonMasks([[p] for p in slanted]).area(),
            "of tensors": PolygonMasks([[torch.tensor(TRIANGLE)]]), "iterated": list(polygons),
            "boxes": polygons.get_bounding_boxes(), "as bitmaps": BitMasks.from_polygon_masks(polygons, 8, 10),
        },
        "bitmaps": {
            "nonempty": bitmaps.nonempty(), "length": len(bitmaps), "size": list(bitmaps.image_size),
            "cat": BitMasks.cat([bitmaps, bitmaps[1]]), "repr": repr(bitmaps), "iterated": list(bitmaps),
            "indexed": {name: bitmaps[index] for name, index in INDICES.items()}, "device": str(bitmaps.device),
            "boxes": bitmaps.get_bounding_boxes(),
        },
        "refused polygons": [
            refusal(PolygonMasks, wrong) for wrong in (drawn, [np.array(SQUARE)], [[[0, 0, 1, 1]]], [[[0.0] * 7]])
        ],
        "refused bitmaps": refusal(BitMasks, drawn[0]),
    }  # fmt: skip


def padded_images() -> dict:
    numbers = torch.arange(60, dtype=torch.float32)
    images = {
        "one": [numbers[:12].reshape(1, 3, 4)], "two": [numbers[:12].reshape(1, 3, 4), numbers[:10].reshape(1, 5, 2)],
        "grey": [numbers[:6].reshape(2, 3), numbers[:6].reshape(3, 2)],
        "integers": [torch.ones(3, 2, 2, dtype=torch.uint8), torch.ones(3, 1, 3, dtype=torch.uint8)],
    }  # fmt: skip
    figures = {
        f"{name}, {divisibility=}, {pad=}": ImageList.from_tensors(tensors, divisibility, pad)
        for (name, tensors), divisibility, pad in itertools.product(images.items(), (0, 1, 4), (0.0, 7.0))
    }
    padded = ImageList.from_tensors(images["two"], 4, 9.0)
    return figures | {
        "indexed": [padded[0], padded[1]], "length": len(padded), "moved": padded.to("cpu"),
        "device": str(padded.device),
        "refused": [refusal(ImageList.from_tensors, wrong) for wrong in ([], [images["two"][0], numbers[None, :6]])],
    }  # fmt: skip


GROUPS = (boxes_converted, operations_on_boxes, operations_on_instances, operations_on_masks, padded_images)
