"""Loading a config: defaults, a file, the folder of a custom dataset, and KEY VALUE pairs."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from d2_detr.config.keys import CUSTOM_TRAIN, CUSTOM_VAL, PANOPTIC_SUFFIX, add_detr_config
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode, get_cfg

EPOCHS = ("SOLVER.MAX_EPOCHS", "TEST.EVAL_EPOCHS")  # keys that may be fractions


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
        InputError: the file is not a config, a key does not exist, or a value has the wrong type.
    """
    cfg = get_cfg()
    add_detr_config(cfg)
    if config_file:
        _merge_file(cfg, config_path(str(config_file)))
    if data:
        complete = cfg.clone()
        merge_options(complete, opts)
        suffix = PANOPTIC_SUFFIX if complete.MODEL.DETR.PANOPTIC_ON else ""
        cfg.DATASETS.CUSTOM = str(Path(data).expanduser().absolute())
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (CUSTOM_TRAIN + suffix,), (CUSTOM_VAL + suffix,)
        cfg.MODEL.DETR.NUM_CLASSES = -1
    merge_options(cfg, opts)
    if cfg.MODEL.DEVICE.startswith("cuda") and "MODEL.DEVICE" not in opts[::2] and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    return cfg


def merge_options(cfg: CfgNode, opts: Sequence[object]) -> None:
    """Merge KEY VALUE pairs into a config, in place.

    Raises:
        InputError: a key that does not exist, a value of the wrong type, or a key without a value.
    """
    try:
        values = {str(key): _decode(value) for key, value in zip(opts[::2], opts[1::2], strict=False)}
        with _any_numbers(cfg, values):
            cfg.merge_from_list(list(opts))
    except (KeyError, ValueError) as error:
        raise InputError(f"options {' '.join(map(str, opts))}: {error.args[0]}") from error
    except AssertionError as error:
        raise InputError(f"options {' '.join(map(str, opts))}: {error}; options are KEY VALUE pairs") from error


def _merge_file(cfg: CfgNode, path: Path) -> None:
    try:
        with _any_numbers(cfg, _flatten(cfg.load_yaml_with_base(str(path), allow_unsafe=False))):
            cfg.merge_from_file(str(path), allow_unsafe=False)
    except (KeyError, ValueError, AssertionError, AttributeError, yaml.YAMLError) as error:
        raise InputError(f"config {path}: {error.args[0] if isinstance(error, KeyError) else error}") from error


@contextmanager
def _any_numbers(cfg: CfgNode, values: Mapping[str, object]) -> Iterator[None]:
    """Let whole numbers replace floats in a merge, and fractions replace EPOCHS, which yacs refuses.

    Args:
        cfg: merged into within the block.
        values: what is merged, by dotted key.
    """
    whole = []
    for key, value in values.items():
        *path, name = key.split(".")
        node: Any = cfg
        for part in path:
            node = node.get(part) if isinstance(node, Mapping) else None
        current = node.get(name) if isinstance(node, Mapping) else None
        if key in EPOCHS and type(value) in (int, float):
            node[name] = value
        elif type(value) is int and isinstance(current, float):
            node[name] = value
            whole.append((node, name))
    yield
    for node, name in whole:
        node[name] = float(node[name])


def _decode(value: object) -> object:
    """Return the value of an option as yacs decodes it: a Python literal, or else the text."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        return value


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Return the values of nested mappings by dotted key."""
    flat: dict[str, object] = {}
    for key, value in content.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def config_path(name: str) -> Path:
    """Return the path of a config file, given as a path or as the bare name of a file below `configs/`.

    Raises:
        FileNotFoundError: no such file; the message lists the shipped ones.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = {path.name: path for path in sorted(configs_folder().rglob("*.yaml"))}
    if name in shipped:
        return shipped[name]
    raise FileNotFoundError(f"config file {name!r} not found; give a path or one of: {', '.join(sorted(shipped))}")


def configs_folder() -> Path:
    """Return `configs/`: inside the package if it was installed from a wheel, beside it in a clone."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
