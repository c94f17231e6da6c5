"""Category ids and names of the classes of a dataset or a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from d2_detr.utils.errors import InputError

COCO_CATEGORIES = Path(__file__).with_name("coco_categories.yaml")


@dataclass(frozen=True)
class LabelMap:
    """Classes in the order of their contiguous ids.

    Args:
        ids: category ids of the annotations.
        names: one name per class, or `()` if unknown.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that ids are unique and that all classes have a name, or none has."""
        if len(set(self.ids)) != len(self.ids):
            raise InputError(f"label map: category ids {list(self.ids)} are not unique")
        if self.names and len(self.names) != len(self.ids):
            raise InputError(f"label map: {len(self.names)} names for {len(self.ids)} category ids")

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.ids)

    @property
    def contiguous_ids(self) -> dict[int, int]:
        """The contiguous id of each category id."""
        return {category_id: i for i, category_id in enumerate(self.ids)}

    @classmethod
    def coco(cls) -> LabelMap:
        """Return the 80 thing classes of COCO, whose ids run from 1 to 90 with gaps."""
        return _coco_label_map("things")

    @classmethod
    def coco_panoptic(cls) -> LabelMap:
        """Return the 80 thing and 53 stuff classes of COCO, whose ids run from 1 to 200 with gaps."""
        return _coco_label_map("things", "stuff")

    @classmethod
    def counted(cls, num_classes: int, first_id: int = 0) -> LabelMap:
        """Return unnamed classes with consecutive ids."""
        return cls(tuple(range(first_id, first_id + num_classes)))

    def extended(self, num_classes: int) -> LabelMap:
        """Return the map for a class head of `num_classes`, whose spare rows get names, and ids beyond all others."""
        spare = num_classes - len(self)
        first_id = max(self.ids, default=-1) + 1
        names = (f"class {row}" for row in range(len(self), num_classes))
        return LabelMap((*self.ids, *range(first_id, first_id + spare)), (*self.names, *names))

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the form that checkpoints store under `label_map`."""
        return {"ids": list(self.ids), "names": list(self.names)}

    @classmethod
    def from_dict(cls, content: object) -> LabelMap:
        """Parse the result of `to_dict`.

        Raises:
            InputError: not a label map.
        """
        ids, names = (content.get(key) if isinstance(content, Mapping) else None for key in ("ids", "names"))
        if not _is_list(ids, int) or not _is_list(names, str):
            raise InputError("label_map of the checkpoint: expected lists `ids` of whole numbers and `names` of text")
        return cls(tuple(ids), tuple(names))


def _is_list(value: object, kind: type) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple) and all(type(entry) is kind for entry in value)


@cache
def _coco_label_map(*groups: str) -> LabelMap:
    content = yaml.safe_load(COCO_CATEGORIES.read_text())
    categories = {category_id: name for group in groups for category_id, name in content[group].items()}
    return LabelMap(tuple(categories), tuple(categories.values()))
