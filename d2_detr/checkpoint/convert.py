"""Convert between the layouts of DETR's state dicts, with a report of what was done."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from d2_detr.checkpoint.architecture import check_complete, infer_architecture
from d2_detr.checkpoint.class_head import MAX_CATEGORY_ID, ClassHead, read_head
from d2_detr.checkpoint.layouts import Format, StateDict, detect_format, from_canonical, to_canonical
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError

CLASS_HEAD = ("class_embed.weight", "class_embed.bias")


@dataclass
class ConversionReport:
    """Report of a conversion: every source key is in exactly one of `converted` and `dropped`.

    Args:
        format: layout of the source.
        notes: what was done to the class head.
        label_map: the classes after the conversion; None without a class head.
    """

    format: Format
    converted: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    label_map: LabelMap | None = None

    def __str__(self) -> str:
        parts = [f"layout of {self.format.title}", f"{len(self.converted)} tensors converted"]
        if self.dropped:
            parts.append(f"{len(self.dropped)} dropped ({', '.join(self.dropped)})")
        return "; ".join([*parts, *self.notes])


def convert(
    state_dict: StateDict,
    to: Format,
    *,
    label_map: LabelMap | None = None,
    first_class_id: int | None = None,
    remove_class_head: bool = False,
    new_classes: int | None = None,
    keep_classes: list[str] | None = None,
) -> tuple[StateDict, ConversionReport]:
    """Convert a state dict of DETR, whose layout is recognized by its names.

    The class head is converted through contiguous ids (see class_head.py). The plugin and the wrapper keep these.
    Native DETR gets one row per category id, with probability 0 for unused ids. Hugging Face gets COCO's classes by
    category id, as published, and all others with contiguous ids.

    Args:
        label_map: the classes of the source, if known.
        first_class_id: category id of the first class, 0 or 1, if the rows are ambiguous.
        remove_class_head: drop the class head.
        new_classes: number of classes of an untrained class head that replaces the old one.
        keep_classes: names of the classes to keep, in their new order.

    Returns:
        The converted state dict and the report. The source is not changed.

    Raises:
        InputError: not DETR, an incomplete DETR, or an ambiguous class head.
    """
    format = detect_format(state_dict)
    if format is Format.IMAGENET:
        raise InputError("ImageNet weights hold only a backbone: use them as MODEL.WEIGHTS without a conversion")
    canonical, report = canonicalize(state_dict, format)
    present = [name for name in CLASS_HEAD if name in canonical]
    if len(present) == 1:
        raise InputError(f"incomplete class head: only {present[0]} is present")
    if present and remove_class_head:
        report.notes.append("class head removed")
        canonical = {name: tensor for name, tensor in canonical.items() if name not in CLASS_HEAD}
    elif present:
        if new_classes is not None:
            first_class_id = 0  # only the row of no-object is kept, so the others may be ambiguous
        weight, bias = (canonical[name] for name in CLASS_HEAD)
        head, note = read_head(weight, bias, format, label_map=label_map, first_class_id=first_class_id)
        report.notes.append(note)
        if new_classes is not None:
            head = head.reinitialized(new_classes)
            report.notes.append(f"replaced by an untrained one of {new_classes + 1} rows")
        if keep_classes is not None:
            head = head.keep(keep_classes)
            report.notes.append(f"rows of {', '.join(keep_classes)} and no-object kept")
        weight, bias, report.label_map = _head_rows(head, to, report)
        canonical = canonical | dict(zip(CLASS_HEAD, (weight, bias), strict=True))
    elif new_classes is not None or keep_classes is not None:
        raise InputError("the source has no class head")
    return from_canonical(canonical, to), report


def canonicalize(state_dict: StateDict, format: Format) -> tuple[StateDict, ConversionReport]:
    """Return a complete DETR under the canonical names, without tensors that are not a part of it.

    Raises:
        InputError: a tensor is missing or has an unexpected shape.
    """
    canonical, accounts = to_canonical(state_dict, format)
    unknown = {None, *check_complete(canonical, infer_architecture(canonical))}
    report = ConversionReport(format)
    for name, new_name in accounts.items():
        (report.dropped if new_name in unknown else report.converted).append(name)
    return {name: tensor for name, tensor in canonical.items() if name not in unknown}, report


def _head_rows(head: ClassHead, to: Format, report: ConversionReport) -> tuple[Tensor, Tensor, LabelMap]:
    """Return weight, bias and label map in the row order of the layout."""
    label_map = head.label_map
    is_coco = label_map.ids in (LabelMap.coco().ids, LabelMap.coco_panoptic().ids)
    by_id = to is Format.NATIVE or (to is Format.HUGGING_FACE and is_coco)
    if by_id and not 0 <= min(label_map.ids) <= max(label_map.ids) <= MAX_CATEGORY_ID:
        ids = f"{min(label_map.ids)} to {max(label_map.ids)}"
        report.notes.append(f"category ids {ids} replaced by ids from 0: a row for each id is not possible")
        label_map = LabelMap(tuple(range(len(label_map))), label_map.names)
        by_id = False
    if not by_id:
        return head.weight, head.bias, label_map
    weight, bias = head.rows_by_id()
    if len(bias) > len(head.bias):
        report.notes.append(f"{len(bias) - len(head.bias)} rows of unused ids added, with probability 0")
    return weight, bias, label_map
