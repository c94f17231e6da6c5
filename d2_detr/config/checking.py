"""What the value of each config key may be, for all keys that have an effect.

The upper limits are far beyond any use. They turn a typing error into a message, before memory or time run out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import reduce
from itertools import pairwise
from operator import getitem
from typing import Any, NamedTuple

import torch

from d2_detr.utils.errors import InputError

import detectron2
from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

MAX_SIDE = 8192  # of an image, in pixels
MAX_CLASSES = 100_000
MAX_BATCH = 100_000  # images
MAX_ITERATIONS = 10**9
MAX_EPOCHS = 10**6
MAX_WORKERS = 1024
MAX_SEED = 2**31 - 1
MAX_WHOLE = 2**63  # greater ones fit into no tensor
MAX_PARAMETERS = 500_000_000  # of the transformer and the heads; the published ones have 20 million


class Rule(NamedTuple):
    """What a value may be."""

    expected: str  # for the message, after "expected"
    accepts: Callable[[Any], bool]


def whole(least: int, most: int) -> Rule:
    """A whole number from `least` to `most`."""
    return Rule(f"a whole number from {least} to {most}", lambda value: type(value) is int and least <= value <= most)


def number(interval: str) -> Rule:
    """A number in an interval such as "[0, 1)", or "(0, inf)" for any that is positive."""
    first, low, high, last = re.fullmatch(r"([(\[])(.+), (.+)([)\]])", interval).groups()  # type: ignore[union-attr]
    least, most = float(low), float(high)

    def accepts(value: Any) -> bool:
        if type(value) not in (int, float) or not least <= value <= most:
            return False
        if type(value) is int and abs(value) >= MAX_WHOLE:
            return False
        return (first == "[" or value > least) and (last == "]" or value < most)

    texts = {"(0, inf)": "a positive number", "[0, inf)": "a number of at least 0"}
    return Rule(texts.get(interval, f"a number in {interval}"), accepts)


def one_of(*choices: object, only_real: tuple[str, ...] = ()) -> Rule:
    """One of several values; those of `only_real` work with the real Detectron2 alone."""
    is_embedded = "embedded" in detectron2.__version__
    allowed = choices if is_embedded else (*choices, *only_real)
    expected = " or ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in allowed)
    if is_embedded and only_real:
        expected += f" ({', '.join(only_real)} with the real Detectron2)"
    return Rule(expected, lambda value: any(type(value) is type(choice) and value == choice for choice in allowed))


def text(least: int = 0, most: int = 4096) -> Rule:
    """Text that can be the name of a file, of so many characters."""

    def accepts(value: Any) -> bool:
        if not isinstance(value, str) or not least <= len(value) <= most or "\0" in value:
            return False
        return value.encode(errors="replace").decode() == value  # no half of a surrogate pair

    return Rule("ordinary text, not empty" if least else "ordinary text", accepts)


def several(rule: Rule, of: str, *, least: int = 0, most: int = 10_000, increasing: bool = False) -> Rule:
    """A list or tuple, whose elements follow a rule."""

    def accepts(values: Any) -> bool:
        if not isinstance(values, list | tuple) or not least <= len(values) <= most:
            return False
        if not all(rule.accepts(value) for value in values):
            return False
        return not increasing or all(a < b for a, b in pairwise(values))

    return Rule(of, accepts)


FLAG = one_of(True, False)
COUNT = whole(0, MAX_ITERATIONS)
SHARE = number("[0, 1]")
WEIGHT = number("[0, inf)")
NAMES = several(text(least=1), 'a list of names such as ("my_dataset",)')


def _is_expected_result(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 4:
        return False
    return all(isinstance(name, str) for name in value[:2]) and all(type(part) in (int, float) for part in value[2:])


RULES: Mapping[str, Rule] = {
    "VERSION": one_of(2),
    "OUTPUT_DIR": text(least=1),
    "SEED": whole(-MAX_SEED, MAX_SEED),  # negative: random
    "CUDNN_BENCHMARK": FLAG,
    "DETERMINISTIC": FLAG,
    "FLOAT32_PRECISION": one_of("", "highest", "high", "medium"),

    "MODEL.META_ARCHITECTURE": text(least=1),
    "MODEL.DEVICE": Rule(
        '"cpu", "cuda", or the number of a GPU such as "cuda:1"',
        lambda value: isinstance(value, str) and re.fullmatch(r"cpu|(cuda|mps|xpu)(:\d{1,3})?", value) is not None,
    ),
    "MODEL.WEIGHTS": text(),
    "MODEL.MASK_ON": FLAG,
    "MODEL.PIXEL_MEAN": several(number("[-1000, 1000]"), "3 numbers, one per color", least=3, most=3),
    "MODEL.PIXEL_STD": several(number("(0, 1000]"), "3 positive numbers, one per color", least=3, most=3),
    "MODEL.BACKBONE.NAME": text(least=1),
    "MODEL.BACKBONE.FREEZE_AT": whole(0, 5),
    "MODEL.RESNETS.DEPTH": one_of(18, 34, 50, 101, 152),
    "MODEL.RESNETS.NORM": text(most=100),
    "MODEL.RESNETS.OUT_FEATURES": several(text(least=1), 'names of stages such as ["res5"]', least=1, most=5),
    "MODEL.RESNETS.RES5_DILATION": one_of(1, 2),
    "MODEL.RESNETS.STRIDE_IN_1X1": FLAG,

    "MODEL.DETR.NUM_CLASSES": Rule(
        f"a whole number from 1 to {MAX_CLASSES}, or -1 to count the categories of the training set",
        lambda value: value == -1 or whole(1, MAX_CLASSES).accepts(value),
    ),
    "MODEL.DETR.FROZEN_WEIGHTS": text(),
    "MODEL.DETR.GIOU_WEIGHT": WEIGHT,
    "MODEL.DETR.L1_WEIGHT": WEIGHT,
    "MODEL.DETR.NO_OBJECT_WEIGHT": number("(0, 1]"),
    "MODEL.DETR.DEEP_SUPERVISION": FLAG,
    "MODEL.DETR.NHEADS": whole(1, 256),
    "MODEL.DETR.DROPOUT": number("[0, 1)"),
    "MODEL.DETR.DIM_FEEDFORWARD": whole(1, 65536),
    "MODEL.DETR.ENC_LAYERS": whole(0, 100),
    "MODEL.DETR.DEC_LAYERS": whole(1, 100),
    "MODEL.DETR.PRE_NORM": FLAG,
    "MODEL.DETR.HIDDEN_DIM": whole(4, 8192),
    "MODEL.DETR.NUM_OBJECT_QUERIES": whole(1, 10_000),
    "MODEL.DETR.SCORE_THRESH_TEST": SHARE,
    "MODEL.DETR.PANOPTIC_ON": FLAG,
    "MODEL.DETR.PANOPTIC_SCORE_THRESH": SHARE,
    "MODEL.DETR.STUFF_CLASSES": several(whole(0, MAX_CLASSES - 1), "contiguous ids of classes such as (80, 81)"),
    "MODEL.DETR.AUTOCAST": one_of("off", "bf16", "auto"),
    "MODEL.DETR.CHECKPOINT_ACTIVATIONS": FLAG,

    "INPUT.FORMAT": one_of("RGB", "BGR"),
    "INPUT.MIN_SIZE_TRAIN": several(
        whole(1, MAX_SIDE), f"sides in pixels from 1 to {MAX_SIDE}, such as (480, 800)", least=1
    ),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": one_of("choice", "range"),
    "INPUT.MAX_SIZE_TRAIN": whole(1, MAX_SIDE),
    "INPUT.MIN_SIZE_TEST": whole(0, MAX_SIDE),  # 0: the image's own size
    "INPUT.MAX_SIZE_TEST": whole(1, MAX_SIDE),
    "INPUT.RANDOM_FLIP": one_of("horizontal", "vertical", "none"),
    "INPUT.MASK_FORMAT": one_of("polygon", "bitmask"),
    "INPUT.CROP.ENABLED": FLAG,
    "INPUT.CROP.TYPE": text(least=1),
    "INPUT.CROP.SIZE": several(
        number(f"(0, {MAX_SIDE}]"), "the smallest and the largest side in pixels, such as (384, 600)", least=2, most=2
    ),

    "DATASETS.TRAIN": NAMES,
    "DATASETS.TEST": NAMES,
    "DATASETS.CUSTOM": text(),
    "DATASETS.STRICT": FLAG,
    "DATALOADER.NUM_WORKERS": whole(0, MAX_WORKERS),
    "DATALOADER.ASPECT_RATIO_GROUPING": FLAG,
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": FLAG,
    "DATALOADER.SAMPLER_TRAIN": one_of("TrainingSampler", "RepeatFactorTrainingSampler"),
    "DATALOADER.REPEAT_THRESHOLD": SHARE,
    "DATALOADER.REPEAT_SQRT": FLAG,
    "DATALOADER.MAX_BAD_IMAGES": SHARE,
    "DATALOADER.TIMEOUT": WEIGHT,  # 0: none

    "SOLVER.MAX_ITER": whole(1, MAX_ITERATIONS),
    "SOLVER.MAX_EPOCHS": number(f"[0, {MAX_EPOCHS}]"),
    "SOLVER.IMS_PER_BATCH": whole(1, MAX_BATCH),
    "SOLVER.REFERENCE_WORLD_SIZE": whole(0, MAX_WORKERS),
    "SOLVER.CHECKPOINT_PERIOD": whole(1, MAX_ITERATIONS),
    "SOLVER.CHECKPOINT_MINUTES": WEIGHT,  # 0: never
    "SOLVER.CHECKPOINTS_KEPT": whole(1, 1000),
    "SOLVER.MAX_BAD_STEPS": COUNT,
    "SOLVER.OPTIMIZER": one_of("ADAMW", "SGD"),
    "SOLVER.BASE_LR": number("(0, inf)"),
    "SOLVER.BASE_LR_END": WEIGHT,
    "SOLVER.BACKBONE_MULTIPLIER": WEIGHT,
    "SOLVER.MOMENTUM": number("[0, 1)"),
    "SOLVER.WEIGHT_DECAY": WEIGHT,
    "SOLVER.LR_SCHEDULER_NAME": one_of(
        "WarmupMultiStepLR", "WarmupCosineLR", only_real=("WarmupStepWithFixedGammaLR",)
    ),
    "SOLVER.STEPS": several(number("(0, inf)"), "increasing positive numbers such as (8000, 11000)", increasing=True),
    "SOLVER.GAMMA": SHARE,
    "SOLVER.NUM_DECAYS": whole(1, 1000),
    "SOLVER.WARMUP_FACTOR": SHARE,
    "SOLVER.WARMUP_ITERS": COUNT,
    "SOLVER.WARMUP_METHOD": one_of("linear", "constant"),
    "SOLVER.RESCALE_INTERVAL": FLAG,
    "SOLVER.PATIENCE": COUNT,
    "SOLVER.EMA_DECAY": number("[0, 1)"),
    "SOLVER.AMP.ENABLED": FLAG,
    "SOLVER.CLIP_GRADIENTS.ENABLED": FLAG,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": one_of("full_model", "value", "norm"),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": WEIGHT,  # 0 does not clip
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": number("(0, inf]"),

    "TEST.EVAL_PERIOD": COUNT,
    "TEST.EVAL_EPOCHS": number(f"[0, {MAX_EPOCHS}]"),
    "TEST.EXPECTED_RESULTS": several(
        Rule("", _is_expected_result), 'a list of results such as [["bbox", "AP", 40.0, 0.5]]'
    ),
    "TEST.REPORT": FLAG,
    "TEST.PRECISE_BN.ENABLED": FLAG,
}  # fmt: skip


def check_value(key: str, value: object) -> None:
    """Check a value for a key.

    Raises:
        InputError: the key cannot have this value; the message says what is expected.
    """
    rule = RULES.get(key)
    if rule and not rule.accepts(value):
        raise InputError(f"{key} {shown(value)}: expected {rule.expected}")


def check_config(cfg: CfgNode) -> None:
    """Check every value of a config, and those that depend on each other for the model and its input.

    Raises:
        InputError: a value is wrong; the message names its key.
    """
    for key in RULES:
        *path, name = key.split(".")
        node = reduce(getitem, path, cfg)
        if name in node:  # an older Detectron2 lacks a few
            check_value(key, node[name])
    if cfg.MODEL.META_ARCHITECTURE not in META_ARCH_REGISTRY:
        raise InputError(f'MODEL.META_ARCHITECTURE {shown(cfg.MODEL.META_ARCHITECTURE)}: expected "Detr"')
    if cfg.MODEL.BACKBONE.NAME not in BACKBONE_REGISTRY:
        known = ", ".join(sorted(name for name, _ in BACKBONE_REGISTRY))
        raise InputError(f"MODEL.BACKBONE.NAME {shown(cfg.MODEL.BACKBONE.NAME)}: expected one of {known}")
    detr, sizes = cfg.MODEL.DETR, cfg.INPUT
    if detr.HIDDEN_DIM % detr.NHEADS or detr.HIDDEN_DIM % 4:
        raise InputError(
            f"MODEL.DETR.HIDDEN_DIM {detr.HIDDEN_DIM}: expected a multiple of NHEADS {detr.NHEADS}, and of 4"
        )
    if num_parameters(detr) > MAX_PARAMETERS:
        raise InputError(
            f"MODEL.DETR describes a model of more than {MAX_PARAMETERS} parameters; reduce HIDDEN_DIM "
            f"{detr.HIDDEN_DIM}, DIM_FEEDFORWARD {detr.DIM_FEEDFORWARD}, ENC_LAYERS {detr.ENC_LAYERS}, DEC_LAYERS "
            f"{detr.DEC_LAYERS}, NUM_OBJECT_QUERIES {detr.NUM_OBJECT_QUERIES} or NUM_CLASSES {detr.NUM_CLASSES}"
        )
    if sizes.MIN_SIZE_TRAIN_SAMPLING == "range" and (
        len(sizes.MIN_SIZE_TRAIN) != 2 or sizes.MIN_SIZE_TRAIN[0] > sizes.MIN_SIZE_TRAIN[1]
    ):
        raise InputError(
            f"INPUT.MIN_SIZE_TRAIN {shown(sizes.MIN_SIZE_TRAIN)}: expected the smallest and the largest side if "
            'MIN_SIZE_TRAIN_SAMPLING is "range"'
        )


def check_training(cfg: CfgNode, num_processes: int) -> None:
    """Check what only a training depends on.

    Raises:
        InputError: see check_config.
    """
    solver = cfg.SOLVER
    made_for = solver.REFERENCE_WORLD_SIZE or num_processes
    if solver.IMS_PER_BATCH % made_for:
        raise InputError(
            f"SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH}: expected a multiple of the {made_for} processes, which "
            "share a batch"
        )
    if solver.AMP.ENABLED and not cfg.MODEL.DEVICE.startswith("cuda"):
        raise InputError(
            f"SOLVER.AMP.ENABLED True with MODEL.DEVICE {cfg.MODEL.DEVICE}: float16 needs a GPU; set it to False. "
            "MODEL.DETR.AUTOCAST auto uses bfloat16 where it is fast"
        )
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and solver.BASE_LR_END > solver.BASE_LR:
        raise InputError(
            f"SOLVER.BASE_LR_END {solver.BASE_LR_END}: expected at most BASE_LR {solver.BASE_LR}, from which the rate "
            "falls"
        )


def check_device(device: str | torch.device) -> None:
    """Check that this machine has a device.

    Raises:
        InputError: it has not; the message says why.
    """
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # unknown, missing, or not supported by this torch
        raise InputError(f"device {str(device)!r}: {str(error).splitlines()[0]}") from error


def num_parameters(detr: CfgNode) -> int:
    """Return about how many parameters the transformer, the queries and the class head of a config have."""
    dim, feedforward = detr.HIDDEN_DIM, 2 * detr.HIDDEN_DIM * detr.DIM_FEEDFORWARD
    layers = detr.ENC_LAYERS * (4 * dim**2 + feedforward) + detr.DEC_LAYERS * (8 * dim**2 + feedforward)
    # Projection of the features, box head, and the convolutions of the mask head.
    return layers + dim * (2048 + detr.NUM_OBJECT_QUERIES + detr.NUM_CLASSES) + 30 * dim**2


def shown(value: object, length: int = 80) -> str:
    """Return a value as a message shows it: short, whatever it is."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = "(a huge number)"
    return text if len(text) <= length else f"{text[: length - 3]}..."
