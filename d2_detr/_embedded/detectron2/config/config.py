"""The config tree and the `configurable` decorator that turns a config into keyword arguments."""

import difflib
import functools
import inspect
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml
from fvcore.common.config import CfgNode as _CfgNode

from detectron2._missing import missing
from detectron2.utils.file_io import PathManager

logger = logging.getLogger(__name__)

Call = Callable[..., Any]
Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class CfgNode(_CfgNode):
    """fvcore's CfgNode, opened through PathManager, checked for its VERSION; an unknown key names its neighbours."""

    @classmethod
    def _open_cfg(cls, filename: str) -> IO[str]:
        return PathManager.open(filename, "r")

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = True) -> None:
        """Merge a YAML file and its `_BASE_`; with `allow_unsafe`, Python tags in it are run, so know its author."""
        assert PathManager.isfile(cfg_filename), f"There is no config file {cfg_filename}"
        loaded = type(self)(self.load_yaml_with_base(cfg_filename, allow_unsafe=allow_unsafe))
        version = loaded.VERSION if "VERSION" in loaded else _guess_version(loaded, cfg_filename)
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


def _guess_version(loaded: CfgNode, filename: str) -> int:
    """Files without a VERSION: 1 if they hold a key that only version 1 had, else the latest."""
    is_old = "WEIGHT" in (loaded.get("MODEL") or {}) or "AUG_ON" in (loaded.get("TEST") or {})
    version = 1 if is_old else _defaults().VERSION
    logger.warning(f"Config '{filename}' has no VERSION; it is read as version {version}.")
    return version


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
    text = Path(__file__).with_name("defaults.yaml").read_text()
    return CfgNode(yaml.load(text, _DefaultsLoader))


def get_cfg() -> CfgNode:
    """Return a new copy of the defaults."""
    return _defaults().clone()


def configurable(init_func: Call | None = None, *, from_config: Call | None = None) -> Call:
    """Let an `__init__` (or, with `from_config=`, a function) be called as `f(cfg, ...)` too.

    `from_config(cfg, ...)` returns the keyword arguments; those it does not take itself are passed on and win.
    """
    if init_func is not None:
        is_init = inspect.isfunction(init_func) and init_func.__name__ == "__init__" and from_config is None
        assert is_init, "@configurable decorates an __init__, or a function as @configurable(from_config=...)"

        @functools.wraps(init_func)
        def wrapped_init(self, *args, **kwargs):
            args, kwargs = _explicit(_from_config_of(type(self)), args, kwargs)
            init_func(self, *args, **kwargs)

        return wrapped_init

    if from_config is None:
        return configurable  # written as @configurable()
    assert inspect.isfunction(from_config), f"from_config must be a function, got {from_config!r}"

    def decorate(function: Call) -> Call:
        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            args, kwargs = _explicit(from_config, args, kwargs)
            return function(*args, **kwargs)

        wrapped.from_config = from_config
        return wrapped

    return decorate


def _from_config_of(cls: type) -> Call:
    if not hasattr(cls, "from_config"):
        raise AttributeError(f"{cls.__name__} is @configurable and must have a classmethod 'from_config'")
    if not inspect.ismethod(cls.from_config):
        raise TypeError(f"{cls.__name__}.from_config must be a classmethod")
    return cls.from_config


def _explicit(from_config: Call, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
    """If the arguments start with a config, return those that `from_config` makes of them."""
    if not isinstance(args[0] if args else kwargs.get("cfg"), _CfgNode):
        return args, kwargs
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), None) != "cfg":
        raise TypeError(f"{from_config.__qualname__} must take 'cfg' as its first argument")
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
        return (), from_config(*args, **kwargs)
    own = {name: kwargs.pop(name) for name in parameters if name in kwargs}
    return (), {**from_config(*args, **own), **kwargs}
