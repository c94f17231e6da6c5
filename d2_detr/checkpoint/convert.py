"""Pure functions between the layouts of DETR's state dicts, each with an account of what it did.

Layouts: the plugin's own is native DETR's under the prefix `detr.`; torchvision's ImageNet classifiers have the
backbone alone. Box checkpoints only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from d2_detr.errors import InputError

StateDict = dict[str, Tensor]

PREFIX = "detr."
BACKBONE = "backbone.0.body."
CLASS_HEAD = ("class_embed.weight", "class_embed.bias")

# Native DETR has a row for every COCO category id up to 90 and one for no-object. These ids were never used.
COCO_ROWS = 92
COCO_UNUSED_IDS = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_USED_ROWS = [row for row in range(COCO_ROWS) if row not in COCO_UNUSED_IDS]


class Format(Enum):
    """What a state dict is, by its names."""

    PLUGIN = "this plugin's"
    NATIVE = "native DETR's"
    IMAGENET = "torchvision's ImageNet classifier"


@dataclass
class Report:
    """Account of a conversion: every key of the source is in exactly one of these."""

    format: Format
    converted: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.format.value} layout", f"{len(self.converted)} tensors converted"]
        if self.dropped:
            parts.append(f"{len(self.dropped)} dropped ({', '.join(self.dropped)})")
        return "; ".join([*parts, *self.notes])


def detect_format(state_dict: StateDict) -> Format:
    """Recognise a layout by its names.

    Raises:
        InputError: none of the known ones.
    """
    if any(name.startswith(("mask_head.", "bbox_attention.")) for name in state_dict):
        raise InputError("a segmentation checkpoint; only box checkpoints can be converted")
    if any(name.startswith("detr.backbone.0.backbone.") for name in state_dict):
        raise InputError("a checkpoint of the official Detectron2 wrapper; convert the native one that it came from")
    if PREFIX + "query_embed.weight" in state_dict:
        return Format.PLUGIN
    if "query_embed.weight" in state_dict:
        return Format.NATIVE
    if {"conv1.weight", "layer1.0.conv1.weight"} <= state_dict.keys():
        return Format.IMAGENET
    raise InputError(
        "not a checkpoint of DETR: expected the names of native DETR (query_embed.weight, transformer...), of this "
        f"plugin (detr.query_embed.weight, ...) or of torchvision's ResNets, got {', '.join(list(state_dict)[:3])}, ..."
    )


def to_plugin(
    state_dict: StateDict, format: Format | None = None, *, remove_class_head: bool = False
) -> tuple[StateDict, Report]:
    """Convert a state dict to the plugin's layout.

    A native class head of 92 rows (COCO's category ids, with 11 rows that were never used) becomes one of 81: the 80
    classes in the order of their ids, then no-object. Other heads are taken to have contiguous ids from 0 and
    no-object last.

    Args:
        format: layout of the source; None recognises it.
        remove_class_head: leave the class head out, so that fine-tuning starts with a new one.

    Returns:
        The converted state dict and the report. The source is not changed.
    """
    format = format or detect_format(state_dict)
    report = Report(format)
    converted: StateDict = {}
    for name, tensor in state_dict.items():
        native = _native_name(name, format)
        if native is None or (remove_class_head and native in CLASS_HEAD):
            report.dropped.append(name)
            continue
        if format is Format.NATIVE and native in CLASS_HEAD and len(tensor) == COCO_ROWS:
            tensor = tensor[COCO_USED_ROWS]
            report.notes.append(f"{name}: {COCO_ROWS} rows of COCO ids to {len(tensor)} of contiguous ids")
        converted[PREFIX + native] = tensor
        report.converted.append(name)
    return converted, report


def _native_name(name: str, format: Format) -> str | None:
    """Native DETR's name for a tensor, or None for one that has no place in DETR."""
    if format is Format.PLUGIN:
        return name.removeprefix(PREFIX) if name.startswith(PREFIX) else None
    if format is Format.NATIVE:
        return name
    return None if name.startswith("fc.") else BACKBONE + name
