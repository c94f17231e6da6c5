"""Errors about what this subset of Detectron2 lacks."""

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import PathFinder
from types import ModuleType
from typing import NoReturn

INSTALL_HINT = "install the real Detectron2 (see the README of d2_detr, 'Install')"


def missing(feature: str) -> str:
    """Return the error message for a missing feature: a noun phrase or dotted name."""
    return f"The detectron2 embedded in d2_detr lacks {feature}; {INSTALL_HINT}"


def missing_attribute(module: str) -> Callable[[str], NoReturn]:
    """Return a module's `__getattr__`: a missing public name is an ImportError."""

    def __getattr__(name: str) -> NoReturn:
        full_name = f"{module}.{name}"
        # Python itself looks up private names, and a submodule in `from package import submodule` before it loads it.
        if name.startswith("_") or PathFinder.find_spec(full_name, getattr(sys.modules[module], "__path__", [])):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        raise ImportError(missing(full_name), name=module)

    return __getattr__


class MissingSubmodules:
    """Last finder on `sys.meta_path`, asked for submodules that no other has found."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Raise ModuleNotFoundError for a submodule of detectron2."""
        if name.startswith("detectron2."):
            raise ModuleNotFoundError(missing(name), name=name)
