"""The config: defaults, merging, calls with a config; the command line."""

from __future__ import annotations

import itertools
import os
import random
import re
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml

from d2_detr import add_detr_config
from d2_detr.config import config_path
from tests.reference.detectron2_figures.common import refusal, temporary_folder

from detectron2.config import configurable, get_cfg
from detectron2.engine import default_argument_parser
from detectron2.utils.env import seed_all_rng

YAML_BASE = """
MODEL: {DEVICE: cpu, PIXEL_MEAN: [1.0, 2.0, 3.0]}
SOLVER:
  STEPS: (10, 20)
  BASE_LR: 0.5
VERSION: 2
"""
YAML_FILE = """
_BASE_: base.yaml
SOLVER: {BASE_LR: 0.25}
DATASETS:
  TRAIN: ("a", "b")
  TEST: [c]
INPUT: {MIN_SIZE_TRAIN: !!python/tuple [64, 80], CROP: {SIZE: [384, 600]}}
"""
OPTIONS = {
    "MODEL.WEIGHTS": "a/model.pth", "MODEL.PIXEL_STD": "(1.0, 2.5, 3)", "MODEL.RPN.LOSS_WEIGHT": "2.0",
    "INPUT.MIN_SIZE_TRAIN": "[64, 80]", "SOLVER.STEPS": "()", "SOLVER.WEIGHT_DECAY": "2e-4",
    "SOLVER.AMP.ENABLED": "True", "DATASETS.TRAIN": "'a', 'b'", "OUTPUT_DIR": "out put", "SEED": "7",
    "TEST.EXPECTED_RESULTS": "[['bbox', 'AP', 38.5, 0.2]]", "SOLVER.WEIGHT_DECAY_BIAS": "0.5",
}  # fmt: skip
MISTAKEN_OPTIONS = {
    "no such key": ["SOLVER.MAX_ITR", "1"], "no such node": ["SOLVR.MAX_ITER", "1"], "text for a number": ["SEED", "x"],
    "a fraction for an integer": ["SEED", "1.5"], "a number for a flag": ["SOLVER.AMP.ENABLED", "1"],
    "an integer for a fraction": ["SOLVER.GAMMA", "1"], "a number for a list": ["SOLVER.STEPS", "3"],
    "no value": ["SEED"],
}  # fmt: skip
MISTAKEN_FILES = {"no such key": "SOLVER: {MAX_ITR: 1}", "text for a number": "SEED: x", "newer": "VERSION: 3"}


def flat(cfg: Any, prefix: str = "") -> dict[str, str]:
    """Return {"A.B.C": repr(value)}, which distinguishes tuples from lists."""
    leaves = {}
    for key, value in cfg.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: repr(value)}
    return leaves


def changes(cfg: Any) -> dict[str, str]:
    """Return the values of Detectron2's own keys that are not the defaults."""
    defaults = flat(get_cfg())
    return {key: value for key, value in flat(cfg).items() if defaults.get(key, value) != value}


def config_defaults() -> dict:
    return flat(get_cfg())


def config_merged() -> dict:
    return {
        "after add_detr_config": changes(plugin_config()),
        "after detr_256_6_6_torchvision.yaml": changes(shipped_config("detr_256_6_6_torchvision.yaml")),
        "after merge_from_list": changes(merged(OPTIONS)),
        **{f"after {key}": changes(merged({key: value})) for key, value in OPTIONS.items()},
        "after a file": changes(config_of_file(YAML_FILE)),
        "dump as read": changes(yaml.safe_load(config_of_file(YAML_FILE).dump())),
        "without a version": changes(config_of_file("SEED: 5")),
        "refused options": {name: refusal(get_cfg().merge_from_list, o) for name, o in MISTAKEN_OPTIONS.items()},
        "refused files": {name: refusal(config_of_file, text) for name, text in MISTAKEN_FILES.items()},
        "a tuple, not trusted": refusal(config_of_file, YAML_FILE, allow_unsafe=False),
        "frozen": refusal(setattr, frozen_config(), "SEED", 1),
    }


def plugin_config() -> Any:
    cfg = get_cfg()
    add_detr_config(cfg)
    return cfg


def frozen_config() -> Any:
    cfg = get_cfg()
    cfg.freeze()
    return cfg


def shipped_config(name: str) -> Any:
    cfg = plugin_config()
    cfg.merge_from_file(str(config_path(name)))
    return cfg


def merged(options: dict[str, str]) -> Any:
    cfg = get_cfg()
    cfg.merge_from_list(list(itertools.chain(*options.items())))
    return cfg


def config_of_file(text: str, **kwargs: Any) -> Any:
    cfg = get_cfg()
    with temporary_folder() as folder:
        (folder / "base.yaml").write_text(YAML_BASE)
        (folder / "some.yaml").write_text(text)
        cfg.merge_from_file(str(folder / "some.yaml"), **kwargs)
    return cfg


class Configured:
    @configurable
    def __init__(self, a: Any, *, b: Any = 2, c: Any = 3):
        self.given = [a, b, c]

    @classmethod
    def from_config(cls, cfg: Any, factor: int = 1) -> dict:
        return {"a": cfg.SEED * factor, "b": cfg.VERSION}


class ConfiguredByAnything(Configured):
    @classmethod
    def from_config(cls, cfg: Any, **kwargs: Any) -> dict:
        return {"a": cfg.SEED, **{key: value * 2 for key, value in kwargs.items()}}


@configurable(from_config=lambda cfg, factor=1: {"a": cfg.SEED * factor})
def configured(a: Any, b: Any = 2) -> list:
    return [a, b]


def configured_calls() -> dict:
    cfg = merged({"SEED": "7"})
    return {
        "values": Configured(1, c=5).given, "a config": Configured(cfg).given, "by name": Configured(cfg=cfg).given,
        "its own argument": Configured(cfg, factor=3).given, "positional": Configured(cfg, 3).given,
        "an argument that wins": Configured(cfg, b=9, c=8).given, "any": ConfiguredByAnything(cfg, b=4, c=5).given,
        "function": [configured(1, 3), configured(cfg), configured(cfg=cfg, b=5), configured(cfg, factor=2, b=6)],
        "nothing": [refusal(Configured), refusal(configured), refusal(Configured, cfg, d=1)],
    }  # fmt: skip


def command_line() -> dict:
    lines = {
        "all": "--config-file a.yaml --resume --eval-only --num-gpus 2 --num-machines 3 --machine-rank 1",
        "nothing": "",
        "options": "--config-file a.yaml SOLVER.BASE_LR 0.1 MODEL.WEIGHTS x --resume", "abbreviated": "--config a.yaml",
        "an address": "--dist-url tcp://a:1",
    }  # fmt: skip
    parsed = {name: vars(default_argument_parser("epilog").parse_args(line.split())) for name, line in lines.items()}
    for arguments in parsed.values():
        arguments["dist_url"] = re.sub(r"(?<=127\.0\.0\.1:)\d+", "a port of the user", arguments["dist_url"])
    return parsed


def seeded_numbers() -> dict:
    with mock.patch.dict(os.environ):
        seed_all_rng(5)
        return {
            "python": random.random(), "numpy": np.random.rand(3).tolist(), "torch": torch.rand(3).double(),
            "hash": os.environ.get("PYTHONHASHSEED"),
        }  # fmt: skip


GROUPS = (config_defaults, config_merged, configured_calls, command_line, seeded_numbers)
