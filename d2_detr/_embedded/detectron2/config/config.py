"""The config tree and the `configurable` decorator that turns a config into keyword arguments."""

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode as _CfgNode

from detectron2._missing import missing


class CfgNode(_CfgNode):
    """fvcore's CfgNode; files are checked for their VERSION, and an unknown key names its neighbours."""

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = True) -> None:
        """Merge a YAML file and its `_BASE_`; with `allow_unsafe`, Python tags in it are run, so know its author."""
        assert Path(cfg_filename).is_file(), f"There is no config file {cfg_filename}"
        loaded = type(self)(self.load_yaml_with_base(cfg_filename, allow_unsafe=allow_unsafe))
        version = loaded.get("VERSION", self.VERSION)
        assert version <= self.VERSION, f"{cfg_filename} has VERSION {version}, newer than {self.VERSION}, the latest"
        if version < self.VERSION:
            raise NotImplementedError(missing(f"the upgrade of config files of version {version} ({cfg_filename})"))
        self.merge_from_other_cfg(loaded)

    def merge_from_other_cfg(self, cfg_other: _CfgNode) -> None:
        with _suggesting(self):
            super().merge_from_other_cfg(cfg_other)

    def merge_from_list(self, cfg_list: list[Any]) -> None:
        with _suggesting(self):
            super().merge_from_list(cfg_list)


def flatten(cfg: _CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("A.B.C", value) for every leaf."""
    for key, value in cfg.items():
        if isinstance(value, _CfgNode):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@contextmanager
def _suggesting(cfg: CfgNode) -> Iterator[None]:
    """Complete yacs' error about an unknown key with the known keys that resemble it."""
    try:
        yield
    except (KeyError, AssertionError) as error:
        unknown = re.fullmatch(r"Non-existent (?:config )?key: (.*)", str(error.args[0] if error.args else ""))
        close = unknown and difflib.get_close_matches(unknown[1], [key for key, _ in flatten(cfg)])
        if not close:
            raise
        raise type(error)(f"{unknown[0]} (did you mean {' or '.join(close)}?)") from None


class _DefaultsLoader(yaml.SafeLoader):
    """Safe YAML plus `!tuple [...]`."""


_DefaultsLoader.add_constructor("!tuple", lambda loader, node: tuple(loader.construct_sequence(node, deep=True)))


@functools.cache
def _defaults() -> CfgNode:
    return CfgNode(yaml.load(Path(__file__).with_name("defaults.yaml").read_text(), _DefaultsLoader))


def get_cfg() -> CfgNode:
    """Return a new copy of the defaults."""
    return _defaults().clone()


def configurable(init_func: Callable | None = None, *, from_config: Callable | None = None) -> Callable:
    """Let an `__init__` (or, with `from_config=`, a function) be called as `f(cfg, ...)` too.

    `from_config(cfg, ...)` returns the keyword arguments; those it does not take itself are passed on and win.
    """
    if init_func is None:
        return functools.partial(_configurable_function, from_config) if from_config else configurable

    @functools.wraps(init_func)
    def wrapped_init(self, *args, **kwargs):
        if not inspect.ismethod(type(self).from_config):
            raise TypeError(f"{type(self).__qualname__} is @configurable: its from_config must be a classmethod")
        args, kwargs = _explicit(type(self).from_config, args, kwargs)
        init_func(self, *args, **kwargs)

    return wrapped_init


def _configurable_function(from_config: Callable, function: Callable) -> Callable:
    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        args, kwargs = _explicit(from_config, args, kwargs)
        return function(*args, **kwargs)

    wrapped.from_config = from_config
    return wrapped


def _explicit(from_config: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """If the arguments start with a config, return those that `from_config` makes of them."""
    if not isinstance(args[0] if args else kwargs.get("cfg"), _CfgNode):
        return args, kwargs
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), None) != "cfg":
        raise TypeError(f"The first argument of {from_config.__qualname__} must be 'cfg'")
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
        return (), from_config(*args, **kwargs)
    own = {name: kwargs.pop(name) for name in parameters if name in kwargs}
    return (), {**from_config(*args, **own), **kwargs}
