"""One sentence for everything that this subset lacks: it names the feature and says how to get the real thing."""

import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

INSTALL_HINT = "install the real Detectron2 (see the README of d2_detr, 'Real Detectron2')"


def missing(feature: str) -> str:
    """Return the sentence that an error about `feature`, a noun phrase or a dotted name, should say."""
    return f"The detectron2 embedded in d2_detr lacks {feature}; {INSTALL_HINT}"


def missing_attribute(module: str) -> Callable[[str], NoReturn]:
    """Build a module's `__getattr__`: `__getattr__ = missing_attribute(__name__)` as its last line.

    Private names and submodules stay AttributeError, so that protocols and `from package import submodule` work.
    """

    def __getattr__(name: str) -> NoReturn:
        if name.startswith("_") or _is_submodule(module, name):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        raise ImportError(missing(f"{module}.{name}"), name=module)

    return __getattr__


def _is_submodule(module: str, name: str) -> bool:
    path = getattr(sys.modules[module], "__path__", None)
    return path is not None and importlib.machinery.PathFinder.find_spec(f"{module}.{name}", path) is not None


class MissingModules:
    """Last finder on `sys.meta_path`: it is asked only for modules of detectron2 that nobody has found."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name.startswith("detectron2."):
            raise ModuleNotFoundError(missing(name), name=name)
