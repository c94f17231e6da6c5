"""Which row of a class head is which class: the rules, in one place.

The last row of every class head of DETR is no-object. What the others are depends on who trained it:

| rows | read as                                                                                       |
|------|-----------------------------------------------------------------------------------------------|
| 92   | COCO as native DETR has it: row = category id 0..90, of which 80 were ever used                |
| 91   | COCO's category ids 1..90, without a row for the unused id 0                                   |
| 81   | COCO's 80 classes with contiguous ids                                                          |
| 80   | not COCO: its 80 classes leave no row for no-object. 79 classes of your own? Say so            |
| 251  | COCO's panoptic segmentation as native DETR has it: row = category id 0..249, of which 133 used |
| 134  | its 80 things and 53 kinds of stuff with contiguous ids, in this order                         |
| 2    | one class, whose category id was 0                                                             |
| n    | category ids 0..n-2; or, where they began with 1, ids 1..n-2 and a row 0 that was never used   |

The last line is why a native head of three rows may be of one class or of two: native DETR asks for the largest
category id plus one. `first_class_id` 0 or 1 says which, and overrules the table. A label map beside the weights, or
the number of classes of the model that is to be filled, decide as well. The plugin and the wrapper count their classes
from 0 without gaps, always.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from d2_detr.checkpoint.layouts import Format
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError

PANOPTIC_ROWS = 251  # of the published heads, with room behind the largest id

# Logit of a class that does not exist: its probability is 0 in every precision, and gradients stay finite.
NOTHING = -1e4
# A native head has a row for every id up to the largest; ids beyond this are counted anew instead.
LARGEST_ID = 1000


class AmbiguousClassHead(InputError):
    """The number of rows does not tell which row is which class."""


@dataclass(frozen=True)
class ClassHead:
    """A class head with contiguous ids: weight (K + 1, C) and bias (K + 1); the last row is no-object."""

    weight: Tensor
    bias: Tensor
    label_map: LabelMap

    def keep(self, names: list[str]) -> ClassHead:
        """The head of the named classes alone, in the order given, with ids counted from 0."""
        known = list(self.label_map.names)
        if unknown := [name for name in names if name not in known]:
            raise InputError(
                f"class {', '.join(unknown)}: not in the head, which knows {', '.join(known) or 'no names'}"
            )
        rows = [*(known.index(name) for name in names), -1]
        return ClassHead(self.weight[rows], self.bias[rows], LabelMap(tuple(range(len(names))), tuple(names)))

    def renewed(self, num_classes: int) -> ClassHead:
        """An untrained head of `num_classes`, that knows no-object already. The same one at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            fresh = torch.nn.Linear(self.weight.shape[1], num_classes + 1)
        weight, bias = fresh.weight.detach().to(self.weight), fresh.bias.detach().to(self.bias)
        weight[-1], bias[-1] = self.weight[-1], self.bias[-1]
        return ClassHead(weight, bias, LabelMap.counted(num_classes))

    def rows_by_id(self) -> tuple[Tensor, Tensor]:
        """Weight and bias with row = category id, as native DETR has them. Rows of no class score nothing."""
        ids = self.label_map.ids
        num_rows = PANOPTIC_ROWS if ids == LabelMap.coco_panoptic().ids else max(ids) + 2
        weight = self.weight.new_zeros(num_rows, self.weight.shape[1])
        bias = self.bias.new_full((num_rows,), NOTHING)
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
    """A class head with contiguous ids from one of any format, by the rules above, and a sentence on what was done.

    Args:
        weight, bias: (n, C) and (n,).
        label_map: what lies beside the weights.
        first_class_id: 0 or 1, overrules.
        num_classes: K of the model that is to be filled.

    Raises:
        AmbiguousClassHead: the rows do not decide, or do not fit `num_classes`.
    """
    rows, found = _rows(len(bias), format, label_map, first_class_id, num_classes)
    head = ClassHead(weight[[*rows, -1]], bias[[*rows, -1]], found)
    if len(rows) + 1 == len(bias):
        return head, f"class head: {len(bias)} rows, {_classes(len(rows))} and no-object"
    return head, f"class head: of {len(bias)} rows {len(rows) + 1} kept, {_classes(len(rows))} and no-object"


def _rows(
    num_rows: int, format: Format, label_map: LabelMap | None, first_class_id: int | None, num_classes: int | None
) -> tuple[tuple[int, ...], LabelMap]:
    """Rows of the classes without no-object, in order, and what they are called."""
    last = num_rows - 1
    whole = tuple(range(last))
    if first_class_id is not None:
        if last <= first_class_id:
            raise InputError(f"first class id {first_class_id}: a class head of {num_rows} rows has no class then")
        return whole[first_class_id:], LabelMap.counted(last - first_class_id, first_class_id)
    contiguous = format in (Format.PLUGIN, Format.WRAPPER)
    if label_map and format is not Format.NATIVE and len(label_map) == last:
        return whole, label_map
    if label_map and not contiguous and max(label_map.ids) < last:
        return label_map.ids, label_map
    readings = _readings(num_rows, only_contiguous=contiguous)
    if num_classes is not None:
        readings = [reading for reading in readings if len(reading[0]) == num_classes][:1]
    elif num_rows in (92, 91, PANOPTIC_ROWS):
        readings = readings[:1]  # COCO
    elif num_rows in (81, 134):
        readings = [reading for reading in readings if reading[0] == whole]
    if len(readings) != 1:
        raise AmbiguousClassHead(_undecided(num_rows, num_classes))
    return readings[0]


def _readings(num_rows: int, *, only_contiguous: bool) -> list[tuple[tuple[int, ...], LabelMap]]:
    """Every way to read a head of so many rows, the likeliest first."""
    last, coco, panoptic = num_rows - 1, LabelMap.coco(), LabelMap.coco_panoptic()
    known = {len(coco): coco, len(panoptic): panoptic}
    whole = (tuple(range(last)), known.get(last) or LabelMap.counted(last))
    if only_contiguous:
        return [whole]
    readings = []
    if num_rows in (92, 91):
        readings.append((tuple(i - (92 - num_rows) for i in coco.ids), coco))
    if num_rows == PANOPTIC_ROWS:
        readings.append((panoptic.ids, panoptic))
    readings.append(whole)
    if last > 1:
        readings.append((tuple(range(1, last)), LabelMap.counted(last - 1, first_id=1)))
    return readings


def _undecided(num_rows: int, num_classes: int | None) -> str:
    if num_classes is not None:
        return f"a class head of {num_rows} rows does not fit {_classes(num_classes)}"
    hint = " COCO's 80 classes have 81 rows, the last for no-object." if num_rows == 80 else ""
    return (
        f"a class head of {num_rows} rows is of {_classes(num_rows - 1)} whose category ids began with 0, or of "
        f"{_classes(num_rows - 2)} whose ids began with 1; say which with --first-class-id 0 or 1.{hint}"
    )


def _classes(number: int) -> str:
    return f"{number} class" if number == 1 else f"{number} classes"
