"""Whatever a config says, it is loaded and builds a model, or is refused with one message."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2_detr.config import configs_folder, load_config, merge_options
from d2_detr.config.checking import MAX_PARAMETERS, RULES, check_config, check_training
from d2_detr.config.resolving import resolve_schedule
from d2_detr.data.augmentation import build_augmentations
from d2_detr.engine.optimizer import build_optimizer
from d2_detr.utils.errors import InputError

from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.solver import build_lr_scheduler

COMPACT = "detr_compact_balloon.yaml"
ON_CPU = ["MODEL.DETR.NUM_CLASSES", 3, "MODEL.DEVICE", "cpu"]
MAX_RESNET_PARAMETERS = 60_000_000
MAX_MESSAGE = 1000  # characters; a suggestion may have several keys


def leaves(node, prefix=""):
    for name, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


DEFAULTS = dict(leaves(load_config(COMPACT)))
SHIPPED = [path.read_bytes() for path in sorted(configs_folder().rglob("*.yaml"))]
SHIPPED.append(load_config(COMPACT).dump().encode())  # all keys

VALUES = (
    None, True, False, 0, 1, -1, 2, 3, 5, 7, 16, 64, 256, 1000, 8192, 10**5, 10**9, 2**31, 2**32, 2**63, 10**30,
    0.0, 0.5, 1.0, 1.5, 1e-300, 1e300, math.nan, math.inf, -math.inf,
    "", "x", "None", "\0", "\ud800", "a" * 5000, "é", "cpu", "cuda", "cuda:99", "gpu",
    [], [1], [0], [1, 2], [2, 1], [3, 3, 3], [0, 0, 0], [0.5], [0.5, 0.8], [1e9], [10**30], [math.nan] * 3,
    ["res4"], ["res2", "res5"], ["res6"], [[1]], [None], ["a"], [["bbox", "AP", 1, 2]], (), (1,), {}, {"a": 1}, b"x",
    1j, {1}, object(), "WarmupCosineLR", "SGD", "bf16", "BN", "range", "vertical", "none", "bitmask", "constant",
    "value", "norm", "full_model", "polygon", "high", "9" * 5000, "0x" + "f" * 5000, "(" * 5000, "-" * 5000 + "1",
)  # fmt: skip


def few(number):
    return settings(max_examples=number, suppress_health_check=list(HealthCheck))


def build(cfg):
    """Build what a training builds, without memory for the model."""
    check_config(cfg)
    check_training(cfg, 1)
    schedule = resolve_schedule(cfg, 100)
    for is_train in (True, False):
        build_augmentations(cfg, is_train)
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    assert sum(p.numel() for p in model.parameters()) < MAX_PARAMETERS + MAX_RESNET_PARAMETERS
    # Two layers for the model's: torch 2.4 has no fused optimizer for tensors without memory.
    optimizer = build_optimizer(
        cfg, torch.nn.ModuleDict({name: torch.nn.Linear(1, 1) for name in ("backbone", "head")})
    )
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = schedule.max_iter, schedule.steps
    build_lr_scheduler(cfg, optimizer)
    assert all(math.isfinite(group["lr"]) for group in optimizer.param_groups)
    cfg.dump()


def builds_or_is_refused(load, *args):
    """Return whether a config was accepted."""
    try:
        cfg = load(*args)
        if cfg.MODEL.META_ARCHITECTURE == "Detr":
            build(cfg)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < MAX_MESSAGE
        return False
    return True


# ---- every key with every value


def check_values(keys):
    compact = load_config(COMPACT, ON_CPU)

    def with_option(key, value):
        cfg = compact.clone()
        merge_options(cfg, [key, value])
        return cfg

    for key in keys:
        for value in VALUES:
            builds_or_is_refused(with_option, key, value)
            builds_or_is_refused(with_option, key, str(value))


def test_some_keys_with_any_value_build_or_are_refused():
    check_values(sorted(RULES)[::30])


@pytest.mark.slow
def test_every_key_with_any_value_builds_or_is_refused():
    check_values(DEFAULTS)


# ---- several keys at once, near what is allowed


def near(default):
    """Values like a default, of which many are allowed."""
    choices = st.sampled_from([default, str(default), [default]])
    if type(default) is int:
        choices |= st.integers(0, 40) | st.integers(0, 10**6)
    elif type(default) is float:
        choices |= st.integers(0, 2) | st.floats(0, 1.5)
    elif type(default) is bool:
        choices |= st.booleans()
    elif isinstance(default, list | tuple):
        choices |= st.lists(st.integers(0, 300) | st.floats(0, 300), max_size=4).map(sorted)
    return choices


@st.composite
def options(draw):
    keys = draw(st.lists(st.sampled_from(sorted(RULES)), min_size=1, max_size=6))
    pairs = [(key, draw(near(DEFAULTS[key]) if draw(st.integers(0, 9)) else st.sampled_from(VALUES))) for key in keys]
    return [part for pair in pairs for part in pair]


def check_options(opts):
    builds_or_is_refused(load_config, COMPACT, [*ON_CPU, *opts])


@few(80)
@given(options())
def test_some_options_build_or_are_refused(opts):
    check_options(opts)


@pytest.mark.slow
@few(10_000)
@given(options())
def test_many_options_build_or_are_refused(opts):
    check_options(opts)


# ---- files

fragments = st.sampled_from(
    ["MODEL:", "SOLVER:", "DETR:", "MAX_ITER:", "WEIGHTS:", "_BASE_:", "my.yaml", "other.yaml", "&a", "*a", "<<: *a",
     "- ", "[", "]", "{", "}", ",", ": ", "? ", "|", ">", "'", '"', "#", "%YAML 1.1", "---", "...", "!!int", "!!set",
     "!!timestamp", "!!binary", "!x", "!!python/object/apply:os.getcwd []", "!!python/name:os.system", "\n", "\n  ",
     "\n    ", "\t", " ", "\0", "\ud7ff", "\r", "1", "-1", "1e-4", "1:1:1", "0b", "0o8", ".inf", ".nan", "~", "yes",
     "2026-02-31", "2026-02-03", "text"]
)  # fmt: skip
yaml_texts = st.lists(fragments, max_size=40).map("".join).map(str.encode)


@st.composite
def damaged_files(draw):
    content = bytearray(draw(st.sampled_from(SHIPPED)))
    for _ in range(draw(st.integers(0, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[draw(st.sampled_from([0, 0, 0, 100])) : draw(st.integers(0, len(content)))])


files = st.one_of(yaml_texts, damaged_files(), st.binary(max_size=200), st.text().map(str.encode))


def check_file(folder, content):
    for name in ("my.yaml", "Base-DETR.yaml"):  # also as a base of the others
        (folder / name).write_bytes(content)
    builds_or_is_refused(load_config, folder / "my.yaml", ON_CPU)


@few(100)
@given(content=files)
def test_some_files_are_loaded_or_refused(tmp_path, content):
    check_file(tmp_path, content)


@pytest.mark.slow
@few(10_000)
@given(content=files)
def test_many_files_are_loaded_or_refused(tmp_path, content):
    check_file(tmp_path, content)
