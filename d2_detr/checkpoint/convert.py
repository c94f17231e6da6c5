"""Pure functions between the layouts of DETR's state dicts, each with an account of what it did."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from d2_detr.checkpoint.architecture import check_complete, infer_architecture
from d2_detr.checkpoint.class_head import LARGEST_ID, ClassHead, read_head
from d2_detr.checkpoint.layouts import Format, StateDict, detect_format, from_canonical, to_canonical
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError

__all__ = ["Format", "Report", "convert", "detect_format", "imagenet_to_plugin"]

CLASS_HEAD = ("class_embed.weight", "class_embed.bias")


@dataclass
class Report:
    """Account of a conversion: every key of the source is in exactly one of `converted` and `dropped`."""

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
) -> tuple[StateDict, Report]:
    """Convert a state dict of DETR, recognised by its names, to another layout.

    The class head goes through contiguous ids (class_head.py has the rules). The plugin and the wrapper keep it so;
    native DETR has it by category id, with rows that score nothing in the gaps; Hugging Face has it as published for
    COCO, and contiguous for other classes.

    Args:
        label_map: what is known of the classes of the source.
        first_class_id: 0 or 1: the category id of the first class, where the rows leave it open.
        remove_class_head: leave the class head out.
        new_classes: put an untrained class head of so many classes in its place.
        keep_classes: names of the classes that stay, in the order that they get.

    Returns:
        The converted state dict and the report. The source is not changed.

    Raises:
        InputError: another model, an incomplete one, or a class head that can be read in two ways.
    """
    format = detect_format(state_dict)
    if format is Format.IMAGENET:
        raise InputError("ImageNet weights are of a backbone alone: give them to MODEL.WEIGHTS as they are")
    common, report = checked(state_dict, format)
    present = [name for name in CLASS_HEAD if name in common]
    if len(present) == 1:
        raise InputError(f"half a class head: {present[0]} alone")
    if present and remove_class_head:
        report.notes.append("class head removed")
        common = {name: tensor for name, tensor in common.items() if name not in CLASS_HEAD}
    elif present:
        if new_classes is not None:
            first_class_id = 0  # of the old rows only no-object stays
        head, note = read_head(
            *(common[name] for name in CLASS_HEAD), format, label_map=label_map, first_class_id=first_class_id
        )
        report.notes.append(note)
        if new_classes is not None:
            head = head.renewed(new_classes)
            report.notes.append(f"in its place an untrained one of {new_classes + 1} rows")
        if keep_classes is not None:
            head = head.keep(keep_classes)
            report.notes.append(f"rows of {', '.join(keep_classes)} and no-object kept")
        weight, bias, report.label_map = _written(head, to, report)
        common = common | dict(zip(CLASS_HEAD, (weight, bias), strict=True))
    elif new_classes is not None or keep_classes is not None:
        raise InputError("there is no class head in the source")
    return from_canonical(common, to), report


def imagenet_to_plugin(state_dict: StateDict) -> tuple[StateDict, Report]:
    """The weights of torchvision's ImageNet classifier as the plugin's backbone; the classifier is dropped."""
    common, accounts = to_canonical(state_dict, Format.IMAGENET)
    return from_canonical(common, Format.PLUGIN), _report(Format.IMAGENET, accounts)


def checked(state_dict: StateDict, format: Format) -> tuple[StateDict, Report]:
    """A whole DETR under the common names. What is no part of it is dropped.

    Raises:
        InputError: a tensor is missing or has an unexpected shape.
    """
    common, accounts = to_canonical(state_dict, format)
    unknown = set(check_complete(common, infer_architecture(common)))
    accounts = {name: None if common_name in unknown else common_name for name, common_name in accounts.items()}
    return {name: tensor for name, tensor in common.items() if name not in unknown}, _report(format, accounts)


def _report(format: Format, accounts: dict[str, str | None]) -> Report:
    return Report(
        format,
        converted=[name for name, common_name in accounts.items() if common_name is not None],
        dropped=[name for name, common_name in accounts.items() if common_name is None],
    )


def _written(head: ClassHead, to: Format, report: Report) -> tuple[Tensor, Tensor, LabelMap]:
    """Weight, bias and label map of a head as the layout has them."""
    label_map = head.label_map
    published = label_map.ids in (LabelMap.coco().ids, LabelMap.coco_panoptic().ids)
    by_id = to is Format.NATIVE or (to is Format.HUGGING_FACE and published)
    if by_id and max(label_map.ids, default=0) > LARGEST_ID:
        report.notes.append(f"category ids up to {max(label_map.ids)}: written with ids counted from 0 instead")
        label_map = LabelMap(tuple(range(len(label_map))), label_map.names)
        by_id = False
    if not by_id:
        return head.weight, head.bias, label_map
    weight, bias = head.rows_by_id()
    if len(bias) > len(head.bias):
        report.notes.append(f"{len(bias) - len(head.bias)} rows of unused ids added, which score nothing")
    return weight, bias, label_map
