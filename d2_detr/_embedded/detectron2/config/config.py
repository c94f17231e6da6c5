"""The config tree, and `configurable`, which turns a config into arguments."""

import difflib
import functools
import inspect
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode as _CfgNode

from detectron2._missing import missing

logger = logging.getLogger(__name__)

_READ = {
    "": "VERSION OUTPUT_DIR SEED CUDNN_BENCHMARK FLOAT32_PRECISION DATASETS.TRAIN DATASETS.TEST",
    "MODEL.": "META_ARCHITECTURE DEVICE WEIGHTS PIXEL_MEAN PIXEL_STD MASK_ON BACKBONE.NAME BACKBONE.FREEZE_AT",
    "MODEL.RESNETS.": "DEPTH NORM OUT_FEATURES RES5_DILATION STRIDE_IN_1X1",
    "INPUT.": "FORMAT MIN_SIZE_TRAIN MIN_SIZE_TRAIN_SAMPLING MAX_SIZE_TRAIN MIN_SIZE_TEST MAX_SIZE_TEST "
    "RANDOM_FLIP MASK_FORMAT CROP.ENABLED CROP.TYPE CROP.SIZE",
    "DATALOADER.": "NUM_WORKERS ASPECT_RATIO_GROUPING FILTER_EMPTY_ANNOTATIONS SAMPLER_TRAIN REPEAT_THRESHOLD "
    "REPEAT_SQRT",
    "SOLVER.": "MAX_ITER IMS_PER_BATCH REFERENCE_WORLD_SIZE CHECKPOINT_PERIOD AMP.ENABLED MOMENTUM BASE_LR "
    "WEIGHT_DECAY LR_SCHEDULER_NAME BASE_LR_END GAMMA STEPS WARMUP_FACTOR WARMUP_ITERS WARMUP_METHOD",
    "SOLVER.CLIP_GRADIENTS.": "ENABLED CLIP_TYPE CLIP_VALUE NORM_TYPE",
    "TEST.": "EVAL_PERIOD EXPECTED_RESULTS PRECISE_BN.ENABLED",
}
READ_KEYS = frozenset(prefix + key for prefix, keys in _READ.items() for key in keys.split())  # by d2_detr or here


class CfgNode(_CfgNode):
    """fvcore's CfgNode, with version checks and suggestions for unknown keys."""

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = True) -> None:
        """Merge a YAML file and its `_BASE_`; `allow_unsafe` runs Python tags in them."""
        assert Path(cfg_filename).is_file(), f"{cfg_filename}: no such config file"
        loaded = type(self)(self.load_yaml_with_base(cfg_filename, allow_unsafe=allow_unsafe))
        version = loaded.get("VERSION", self.VERSION)
        assert version <= self.VERSION, f"{cfg_filename}: VERSION {version} is unknown; the latest is {self.VERSION}"
        if version < self.VERSION:
            raise NotImplementedError(missing(f"the upgrade of config files of version {version} ({cfg_filename})"))
        self.merge_from_other_cfg(loaded)

    def merge_from_other_cfg(self, cfg_other: _CfgNode) -> None:
        with _suggest_keys(self):
            super().merge_from_other_cfg(cfg_other)

    def merge_from_list(self, cfg_list: list[Any]) -> None:
        with _suggest_keys(self):
            super().merge_from_list(cfg_list)


def flatten(cfg: _CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("A.B.C", value) for every leaf."""
    for key, value in cfg.items():
        if isinstance(value, _CfgNode):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@contextmanager
def _suggest_keys(cfg: CfgNode) -> Iterator[None]:
    """Append similar keys to yacs's error about an unknown key."""
    try:
        yield
    except (KeyError, AssertionError) as error:
        unknown = re.fullmatch(r"Non-existent (?:config )?key: (.*)", str(error.args[0] if error.args else ""))
        if unknown and (similar := difflib.get_close_matches(unknown[1], list(dict(flatten(cfg))))):
            raise type(error)(f"{unknown[0]} (did you mean {' or '.join(similar)}?)") from None
        raise


@functools.cache
def _defaults() -> CfgNode:
    return CfgNode(yaml.full_load(Path(__file__).with_name("defaults.yaml").read_text()))


def get_cfg() -> CfgNode:
    """Return a new copy of the defaults."""
    return _defaults().clone()


def warn_unread(cfg: CfgNode) -> None:
    """Warn about the keys of Detectron2 that have a new value, but no effect."""
    defaults = dict(flatten(_defaults()))
    changed = {k for k, value in flatten(cfg) if k in defaults and json.dumps(value) != json.dumps(defaults[k])}
    if unread := sorted(changed - READ_KEYS):
        logger.warning(f"These config keys are set, but nothing reads them: {', '.join(unread)}")


def configurable(init_func: Callable | None = None, *, from_config: Callable | None = None) -> Callable:
    """Let an `__init__`, or with `from_config` a function, be called with a config.

    `from_config(cfg, ...)` returns the keyword arguments; arguments that it does not take itself override them.
    """
    if init_func is None:
        return functools.partial(_configurable_function, from_config) if from_config else configurable

    @functools.wraps(init_func)
    def wrapped_init(self: Any, *args: Any, **kwargs: Any) -> None:
        if not inspect.ismethod(type(self).from_config):
            raise TypeError(f"{type(self).__qualname__} is @configurable: its from_config must be a classmethod")
        args, kwargs = _explicit_arguments(type(self).from_config, args, kwargs)
        init_func(self, *args, **kwargs)

    return wrapped_init


def _configurable_function(from_config: Callable, function: Callable) -> Callable:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = _explicit_arguments(from_config, args, kwargs)
        return function(*args, **kwargs)

    wrapped.from_config = from_config  # type: ignore[attr-defined]
    return wrapped


def _explicit_arguments(from_config: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Replace a leading config by the arguments that `from_config` returns for it."""
    if not isinstance(args[0] if args else kwargs.get("cfg"), _CfgNode):
        return args, kwargs
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), None) != "cfg":
        raise TypeError(f"{from_config.__qualname__}: the first argument must be named 'cfg'")
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
        return (), from_config(*args, **kwargs)
    own = {name: kwargs.pop(name) for name in parameters if name in kwargs}
    return (), {**from_config(*args, **own), **kwargs}
