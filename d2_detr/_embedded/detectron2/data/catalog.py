"""Two global registries: how to load each dataset, and its metadata."""

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
    """Name -> function that returns the dataset dicts, the same at every call."""

    def register(self, name: str, func: Callable[[], list[dict]]) -> None:
        assert callable(func), f"Dataset '{name}' must be registered as a function that returns it, got {type(func)}"
        assert name not in self, f"Dataset '{name}' is registered already"
        self[name] = func

    def get(self, name: str) -> list[dict]:  # type: ignore[override]
        if name not in self:
            raise KeyError(f"Dataset '{name}' is not registered; registered are: {', '.join(self)}")
        return self[name]()


class Metadata(SimpleNamespace):
    """Facts about a dataset as attributes, such as `thing_classes`, each set once."""

    name: str = "N/A"

    def __getattr__(self, key: str) -> Any:
        raise AttributeError(f"The metadata of dataset '{self.name}' lacks '{key}'; it has: {', '.join(self.__dict__)}")

    def __setattr__(self, key: str, val: Any) -> None:
        old = getattr(self, key, val)
        assert old == val, f"The metadata of dataset '{self.name}' has '{key}' {old!r}, which cannot become {val!r}"
        super().__setattr__(key, val)

    def set(self, **kwargs: Any) -> "Metadata":
        for key, val in kwargs.items():
            setattr(self, key, val)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self, key, default)


class _MetadataCatalog(_Catalog):
    """Name -> its only `Metadata`, created at the first access."""

    def get(self, name: str) -> Metadata:  # type: ignore[override]
        """Return the metadata of dataset `name`, which need not be registered."""
        return self.setdefault(name, Metadata(name=name))


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
