"""Loading a config: defaults, a file, the folder of a custom dataset, and KEY VALUE pairs."""

from __future__ import annotations

import ast
import difflib
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from d2_detr.config.checking import MAX_WHOLE, RULES, check_value, shown
from d2_detr.config.keys import CUSTOM_TRAIN, CUSTOM_VAL, PANOPTIC_SUFFIX, add_detr_config
from d2_detr.config.reading import Setting, read_config
from d2_detr.utils.errors import InputError, error_context

from detectron2.config import CfgNode, get_cfg

MAX_LITERAL = 10_000  # characters of a value; Python's parser takes its time with longer ones
MAX_KEY = 100  # characters


def load_config(config_file: str | Path, opts: Sequence[object] = (), data: str | Path = "") -> CfgNode:
    """Load the defaults, overridden by a file and by KEY VALUE pairs.

    Without a CUDA device MODEL.DEVICE becomes "cpu", unless it is among the pairs.

    Args:
        config_file: a path, the bare name of a shipped file, or "" for the defaults.
        opts: KEY, VALUE, KEY, VALUE, ...
        data: folder of a custom dataset (see data/datasets/layouts.py) that replaces the datasets of the file; its
            classes are counted.

    Raises:
        FileNotFoundError: no such file; the message lists the shipped ones.
        InputError: the file is not a config, a key does not exist, or a value is not one of those that it may have.
    """
    cfg = get_cfg()
    add_detr_config(cfg)
    for setting in read_config(config_path(str(config_file))) if config_file else ():
        _merge(cfg, setting)
    if data:
        complete = cfg.clone()
        merge_options(complete, opts)
        suffix = PANOPTIC_SUFFIX if complete.MODEL.DETR.PANOPTIC_ON else ""
        cfg.DATASETS.CUSTOM = str(Path(os.path.expanduser(data)).absolute())
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (CUSTOM_TRAIN + suffix,), (CUSTOM_VAL + suffix,)
        cfg.MODEL.DETR.NUM_CLASSES = -1
    merge_options(cfg, opts)
    if cfg.MODEL.DEVICE.startswith("cuda") and "MODEL.DEVICE" not in opts[::2] and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    return cfg


def merge_options(cfg: CfgNode, opts: Sequence[object]) -> None:
    """Merge KEY VALUE pairs into a config, in place.

    Raises:
        InputError: a key that does not exist or lacks its value, or a value that the key cannot have.
    """
    if len(opts) % 2:
        raise InputError(f"options {' '.join(map(str, opts))}: the last one has no value; options are KEY VALUE pairs")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        _merge(cfg, Setting(str(key), value))


def _merge(cfg: CfgNode, setting: Setting) -> None:
    """Set a value in a config; whole numbers may replace floats, and lists may replace tuples, or vice versa."""
    with error_context(setting.place) if setting.place else nullcontext():
        node, name = _find(cfg, setting.key)
        current = node[name]
        if isinstance(current, Mapping):
            example = f"{setting.key}.{next(iter(current))}"
            raise InputError(f"{setting.key} {shown(setting.value)}: a section; set its keys, such as {example}")
        value = _convert(setting.value, current)
        check_value(setting.key, value)
        if setting.key not in RULES and not (_is_plain(value) and type(value) in (type(current), type(None))):
            raise InputError(f"{setting.key} {shown(value)}: expected a value like {shown(current)}")
        node[name] = value


def _find(cfg: CfgNode, key: str) -> tuple[Any, str]:
    """Return the section of a key, and its name there."""
    *path, name = key.split(".")
    node: Any = cfg
    for part in path:
        node = node.get(part) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping) or name not in node:
        similar = difflib.get_close_matches(key, _keys(cfg), n=2) if len(key) <= MAX_KEY else ()
        hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
        raise InputError(f"{key if len(key) <= MAX_KEY else key[:MAX_KEY] + '...'}: no such config key{hint}")
    return node, name


def _convert(value: object, current: object) -> object:
    """Return a value as the type of the current one, if it means the same."""
    decoded = _decode(value)
    if isinstance(current, str):
        return decoded if isinstance(decoded, str) else value  # a folder may be named 2026
    if isinstance(current, float) and type(decoded) is int:
        return float(decoded) if abs(decoded) < MAX_WHOLE else decoded
    if isinstance(current, list | tuple) and isinstance(decoded, list | tuple):
        return type(current)(decoded)
    return deepcopy(decoded)


def _decode(value: object) -> object:
    """Return the value of text as Detectron2 decodes it: a Python literal, or else the text."""
    if not isinstance(value, str) or len(value) > MAX_LITERAL:
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _is_plain(value: object) -> bool:
    """Return whether a value has only types that a config can be written with."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if type(value) is int:
        return abs(value) < MAX_WHOLE
    return value is None or isinstance(value, str | bool | float)


def _keys(cfg: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return all keys of a config, dotted."""
    keys = []
    for name, value in cfg.items():
        keys += _keys(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [f"{prefix}{name}"]
    return keys


def config_path(name: str) -> Path:
    """Return the path of a config file, given as a path or as the bare name of a file below `configs/`.

    Raises:
        FileNotFoundError: no such file; the message lists the shipped ones.
    """
    if os.path.isfile(name):  # which is also an answer about names that no file can have
        return Path(name)
    shipped = {path.name: path for path in sorted(configs_folder().rglob("*.yaml"))}
    if name in shipped:
        return shipped[name]
    raise FileNotFoundError(f"config file {shown(name)} not found; give a path or one of: {', '.join(sorted(shipped))}")


def configs_folder() -> Path:
    """Return `configs/`: inside the package if it was installed from a wheel, beside it in a clone."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
