"""Two global dictionaries: how to load each named dataset, and what is known about it."""

from collections import UserDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog"]


class _Catalog(UserDict):
    def list(self) -> list[str]:
        return [*self]

    def remove(self, name: str) -> None:
        self.pop(name)


class _DatasetCatalog(_Catalog):
    """Name -> function without arguments that returns the same dataset dicts at every call."""

    def register(self, name: str, func: Callable[[], list[dict]]) -> None:
        assert callable(func), f"A dataset is registered as a function that returns it, '{name}' as {type(func)}"
        assert name not in self, f"A dataset is registered under the name '{name}' already"
        self[name] = func

    def get(self, name: str) -> list[dict]:
        if name not in self:
            raise KeyError(f"No dataset '{name}'; registered are: {', '.join(self)}")
        return self[name]()


class Metadata(SimpleNamespace):
    """Facts about a dataset as attributes (`thing_classes`, `json_file`, ...), each set once and for all."""

    name: str = "N/A"

    def __getattr__(self, key: str) -> Any:
        raise AttributeError(f"The metadata of dataset '{self.name}' has no '{key}', but {', '.join(self.__dict__)}")

    def __setattr__(self, key: str, val: Any) -> None:
        old = getattr(self, key, val)
        assert old == val, f"'{key}' in the metadata of '{self.name}' is {old!r} and cannot become {val!r}"
        super().__setattr__(key, val)

    def set(self, **kwargs: Any) -> "Metadata":
        for key, val in kwargs.items():
            setattr(self, key, val)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self, key, default)


class _MetadataCatalog(_Catalog):
    """Name -> its only `Metadata`, created empty when first asked for."""

    def get(self, name: str) -> Metadata:
        return self.setdefault(name, Metadata(name=name))


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
