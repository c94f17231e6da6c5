"""Annotated or predicted instances of one image."""

import itertools
from typing import Any, NoReturn

import torch


class Instances:
    """The instances of an image: fields of equal length, read and set as attributes.

    `image_size` is (height, width). Names that begin with `_` are ordinary attributes, not fields.
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any):
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__.get("_fields", {})  # pickle asks before it is set
        if name not in fields:
            raise AttributeError(f"Instances has no field {name!r}; it has {list(fields)}")
        return fields[name]

    def set(self, name: str, value: Any) -> None:
        length = len(value)
        assert not self._fields or length == len(self), f"Field {name!r} has length {length}, the others {len(self)}"
        self._fields[name] = value

    def has(self, name: str) -> bool:
        return name in self._fields

    def remove(self, name: str) -> None:
        del self._fields[name]

    def get(self, name: str) -> Any:
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """Return the dict of fields itself, not a copy."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> "Instances":
        """Return a copy with all fields that have a `to` moved or cast."""
        moved = {name: v.to(*args, **kwargs) if hasattr(v, "to") else v for name, v in self._fields.items()}
        return Instances(self._image_size, **moved)

    def __getitem__(self, item: int | slice | torch.Tensor) -> "Instances":
        """Index all fields; an int returns Instances of length 1."""
        if type(item) is int:
            if not -len(self) <= item < len(self):
                raise IndexError(f"Index {item} is out of range for {len(self)} instances")
            item = slice(item, None, len(self))
        return Instances(self._image_size, **{name: value[item] for name, value in self._fields.items()})

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without fields have no length")

    def __iter__(self) -> NoReturn:
        raise NotImplementedError("Instances is not iterable; iterate over its fields or over range(len(instances))")

    @staticmethod
    def cat(instance_lists: list["Instances"]) -> "Instances":
        """Concatenate instances that have the same image size and fields."""
        first = instance_lists[0]
        sizes = [i.image_size for i in instance_lists]
        assert all(size == first.image_size for size in sizes), f"image sizes differ: {sizes}"
        fields = {name: _cat_field([i.get(name) for i in instance_lists]) for name in first.get_fields()}
        return Instances(first.image_size, **fields)

    def __repr__(self) -> str:
        height, width = self._image_size
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        return f"Instances(num_instances={len(self)}, image_height={height}, image_width={width}, fields=[{fields}])"


def _cat_field(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(values)
    if isinstance(first, list):
        return list(itertools.chain.from_iterable(values))
    return type(first).cat(values)
