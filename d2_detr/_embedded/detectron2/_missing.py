"""One sentence for everything that this subset lacks: it names the feature and says how to get the real thing."""

from collections.abc import Sequence
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import NoReturn

INSTALL_HINT = "install the real Detectron2 (see the README of d2_detr, 'Real Detectron2')"


def missing(feature: str) -> str:
    """Return the sentence that an error about `feature`, a noun phrase or a dotted name, should say."""
    return f"The detectron2 embedded in d2_detr lacks {feature}; {INSTALL_HINT}"


def missing_attribute(module: ModuleType, name: str) -> NoReturn:
    """What `__getattr__` of each module here does with a name that the module lacks.

    Private names and submodules stay AttributeError, so that protocols and `from package import submodule` work.
    """
    full_name = f"{module.__name__}.{name}"
    if name.startswith("_") or PathFinder.find_spec(full_name, getattr(module, "__path__", [])):
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    raise ImportError(missing(full_name), name=module.__name__)


class SubsetFinder:
    """First finder on `sys.meta_path`: it loads the modules of detectron2, each with a `__getattr__` as above."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith("detectron2."):
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None:
            raise ModuleNotFoundError(missing(name), name=name)
        spec.loader = _Loader(name, spec.origin)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.__getattr__ = partial(missing_attribute, module)
