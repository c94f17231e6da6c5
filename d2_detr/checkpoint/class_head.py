"""The rules for which row of a class head is which class.

The last row of every class head of DETR is no-object. The meaning of the others depends on who trained it:

| rows | read as                                                                                         |
|------|-------------------------------------------------------------------------------------------------|
| 92   | COCO in native DETR: row = category id 0..90, of which 80 are used                              |
| 91   | COCO's category ids 1..90, without a row for the unused id 0                                    |
| 81   | COCO's 80 classes with contiguous ids                                                           |
| 80   | not COCO, whose 80 classes leave no row for no-object; ambiguous like every other number        |
| 251  | COCO's panoptic segmentation in native DETR: row = category id 0..249, of which 133 are used    |
| 134  | COCO's 80 things and 53 stuff classes with contiguous ids, in this order                        |
| 2    | one class with category id 0                                                                    |
| n    | category ids 0..n-2; or, if they start with 1, ids 1..n-2 and an unused row 0                   |

Because of the last line, a native head of three rows has one class or two: native DETR's `num_classes` is the largest
category id plus one. `first_class_id` 0 or 1 decides, and overrides the table. A label map beside the weights, or the
number of classes of the model that is loaded into, also decides. The plugin and the wrapper always use contiguous ids
from 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from d2_detr.checkpoint.layouts import Format
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError

PANOPTIC_ROWS = 251  # of the published heads; the largest category id is 200

# Logit of a row without a class: its probability is 0 in every precision, and gradients stay finite.
UNUSED_LOGIT = -1e4
# A native head has a row for every id up to the largest. With larger ids than this, contiguous ids are written instead.
MAX_CATEGORY_ID = 1000


class AmbiguousClassHead(InputError):
    """The number of rows does not tell which row is which class."""


@dataclass(frozen=True)
class ClassHead:
    """A class head with contiguous ids.

    Args:
        weight (K + 1, C), bias (K + 1): one row per class; the last row is no-object.
        label_map: the K classes.
    """

    weight: Tensor
    bias: Tensor
    label_map: LabelMap

    def keep(self, names: list[str]) -> ClassHead:
        """Return a head of the named classes only, in the given order, with ids from 0.

        Raises:
            InputError: unknown class name, or none.
        """
        known = list(self.label_map.names)
        if not names:
            raise InputError("no class to keep")
        if unknown := [name for name in names if name not in known]:
            raise InputError(
                f"class {', '.join(unknown)}: not in the head; its classes are {', '.join(known) or 'unnamed'}"
            )
        rows = [*(known.index(name) for name in names), -1]
        return ClassHead(self.weight[rows], self.bias[rows], LabelMap(tuple(range(len(names))), tuple(names)))

    def reinitialized(self, num_classes: int) -> ClassHead:
        """Return an untrained head that keeps the row of no-object; the same head in every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            fresh = torch.nn.Linear(self.weight.shape[1], num_classes + 1)
        weight, bias = fresh.weight.detach().to(self.weight), fresh.bias.detach().to(self.bias)
        weight[-1], bias[-1] = self.weight[-1], self.bias[-1]
        return ClassHead(weight, bias, LabelMap.counted(num_classes))

    def rows_by_id(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias with row = category id, as in native DETR. Unused rows have probability 0."""
        ids = self.label_map.ids
        num_rows = PANOPTIC_ROWS if ids == LabelMap.coco_panoptic().ids else max(ids) + 2
        weight = self.weight.new_zeros(num_rows, self.weight.shape[1])
        bias = self.bias.new_full((num_rows,), UNUSED_LOGIT)
        rows = [*ids, num_rows - 1]
        weight[rows], bias[rows] = self.weight, self.bias
        return weight, bias


def read_head(
    weight: Tensor,
    bias: Tensor,
    format: Format,
    *,
    label_map: LabelMap | None = None,
    first_class_id: int | None = None,
    num_classes: int | None = None,
) -> tuple[ClassHead, str]:
    """Read a class head of any layout by the rules above.

    Args:
        weight (n, C), bias (n): the rows of the checkpoint.
        label_map: stored beside the weights.
        first_class_id: 0 or 1; overrides the rules.
        num_classes: K of the model that is loaded into.

    Returns:
        The head with contiguous ids, and a sentence that says which rows were kept.

    Raises:
        AmbiguousClassHead: the number of rows is ambiguous, or does not fit `num_classes`.
        InputError: it has no class, or the label map has other rows.
    """
    if weight.dim() != 2 or bias.shape != weight.shape[:1] or len(bias) < 2:
        raise InputError(
            f"class head: weight and bias have the shapes {tuple(weight.shape)} and {tuple(bias.shape)}, expected "
            "(n, C) and (n), with n of 2 or more"
        )
    rows, classes = _rows(len(bias), format, label_map, first_class_id, num_classes)
    head = ClassHead(weight[[*rows, -1]], bias[[*rows, -1]], classes)
    if len(rows) + 1 == len(bias):
        return head, f"class head: {len(bias)} rows, {_classes(len(rows))} and no-object"
    return head, f"class head: {len(rows) + 1} of {len(bias)} rows kept, {_classes(len(rows))} and no-object"


def _rows(
    num_rows: int, format: Format, label_map: LabelMap | None, first_class_id: int | None, num_classes: int | None
) -> tuple[tuple[int, ...], LabelMap]:
    """Return the rows of the classes, in order and without no-object, and the classes."""
    last = num_rows - 1
    all_rows = tuple(range(last))
    if first_class_id is not None:
        if last <= first_class_id:
            raise InputError(f"first class id {first_class_id}: leaves no class in a class head of {num_rows} rows")
        return all_rows[first_class_id:], LabelMap.counted(last - first_class_id, first_class_id)
    contiguous = format in (Format.PLUGIN, Format.WRAPPER)
    if label_map and format is not Format.NATIVE and len(label_map) == last:
        return all_rows, label_map
    if label_map and contiguous:
        raise InputError(f"label map: {_classes(len(label_map))}, but the class head has {_classes(last)}")
    if label_map:
        if not 0 <= min(label_map.ids) <= max(label_map.ids) < last:
            raise InputError(
                f"label map: category ids from {min(label_map.ids)} to {max(label_map.ids)}, but the rows of the class "
                f"head are those of 0 to {last - 1}"
            )
        return label_map.ids, label_map
    readings = _readings(num_rows, only_contiguous=contiguous)
    if num_classes is not None:
        readings = [reading for reading in readings if len(reading[0]) == num_classes][:1]
    elif num_rows in (92, 91, PANOPTIC_ROWS):
        readings = readings[:1]  # COCO
    elif num_rows in (81, 134):
        readings = [reading for reading in readings if reading[0] == all_rows]
    if len(readings) != 1:
        raise AmbiguousClassHead(_ambiguity(num_rows, num_classes))
    return readings[0]


def _readings(num_rows: int, *, only_contiguous: bool) -> list[tuple[tuple[int, ...], LabelMap]]:
    """Return all possible readings of a head, the likeliest first."""
    last, coco, panoptic = num_rows - 1, LabelMap.coco(), LabelMap.coco_panoptic()
    known = {len(coco): coco, len(panoptic): panoptic}
    all_rows = (tuple(range(last)), known.get(last) or LabelMap.counted(last))
    if only_contiguous:
        return [all_rows]
    readings = []
    if num_rows in (92, 91):
        readings.append((tuple(i - (92 - num_rows) for i in coco.ids), coco))
    if num_rows == PANOPTIC_ROWS:
        readings.append((panoptic.ids, panoptic))
    readings.append(all_rows)
    if last > 1:
        readings.append((tuple(range(1, last)), LabelMap.counted(last - 1, first_id=1)))
    return readings


def _ambiguity(num_rows: int, num_classes: int | None) -> str:
    if num_classes is not None:
        return f"a class head of {num_rows} rows does not fit {_classes(num_classes)}"
    hint = " COCO's 80 classes have 81 rows, the last for no-object." if num_rows == 80 else ""
    return (
        f"a class head of {num_rows} rows has {_classes(num_rows - 1)} if category ids start with 0, or "
        f"{_classes(num_rows - 2)} if they start with 1; say which with --first-class-id 0 or 1.{hint}"
    )


def _classes(number: int) -> str:
    return f"{number} class" if number == 1 else f"{number} classes"
