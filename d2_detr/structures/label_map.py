"""The classes of a dataset or a model: category ids and names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from d2_detr.utils.errors import InputError

COCO_CATEGORIES = Path(__file__).with_name("coco_categories.yaml")


@dataclass(frozen=True)
class LabelMap:
    """Classes in the order of their contiguous ids: category ids of the annotations, and names (`()` if unknown)."""

    ids: tuple[int, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that ids are unique and that every class has a name, or none has."""
        if len(set(self.ids)) != len(self.ids) or (self.names and len(self.names) != len(self.ids)):
            raise InputError(f"label map: {len(self.names)} names for the category ids {list(self.ids)}")

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.ids)

    @classmethod
    def coco(cls) -> LabelMap:
        """Return COCO's 80 classes; their ids run from 1 to 90 with gaps."""
        return _coco_things()

    @classmethod
    def coco_panoptic(cls) -> LabelMap:
        """Return COCO's 80 thing and 53 stuff classes; their ids run from 1 to 200 with gaps."""
        return _coco_panoptic()

    @classmethod
    def counted(cls, num_classes: int, first_id: int = 0) -> LabelMap:
        """Return unnamed classes with consecutive ids."""
        return cls(tuple(range(first_id, first_id + num_classes)))

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the form in which a checkpoint stores it under `label_map`."""
        return {"ids": list(self.ids), "names": list(self.names)}

    @classmethod
    def from_dict(cls, content: Mapping[str, list[Any]]) -> LabelMap:
        """Parse what `to_dict` returned.

        Raises:
            InputError: the content is not a label map.
        """
        try:
            return cls(tuple(int(i) for i in content["ids"]), tuple(str(name) for name in content["names"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"label_map of the checkpoint: expected lists `ids` and `names` ({error})") from error


@cache
def _coco_things() -> LabelMap:
    things = yaml.safe_load(COCO_CATEGORIES.read_text())["things"]
    return LabelMap(tuple(things), tuple(things.values()))


@cache
def _coco_panoptic() -> LabelMap:
    categories = yaml.safe_load(COCO_CATEGORIES.read_text())
    both = categories["things"] | categories["stuff"]
    return LabelMap(tuple(both), tuple(both.values()))
