from pathlib import Path

import pytest
import yaml

from detectron2.config import configurable, get_cfg

DEFAULTS = Path(__file__).parents[2] / "d2_detr/_embedded/detectron2/config/defaults.yaml"


@pytest.fixture
def cfg():
    return get_cfg()


@pytest.fixture
def write(tmp_path):
    def write(text, name="config.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_defaults_yaml_has_every_key_with_value_and_type(cfg):
    recorded = dict(leaves(yaml.full_load(DEFAULTS.read_text())))
    actual = dict(leaves(cfg))
    assert recorded == actual
    assert {key: type(value) for key, value in recorded.items()} == {key: type(value) for key, value in actual.items()}


def test_get_cfg_returns_independent_copies(cfg):
    cfg.MODEL.PIXEL_MEAN.append(1.0)
    cfg.SOLVER.MAX_ITER = 7
    assert len(get_cfg().MODEL.PIXEL_MEAN) == 3
    assert get_cfg().SOLVER.MAX_ITER == 40000


def test_file_overrides_its_base_and_keeps_types(cfg, write):
    write("VERSION: 2\nSOLVER: {MAX_ITER: 10, BASE_LR: 0.5}\nDATASETS: {TRAIN: [a, b]}", "base.yaml")
    cfg.merge_from_file(write("_BASE_: base.yaml\nSOLVER: {MAX_ITER: 20}"))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (20, 0.5)
    assert cfg.DATASETS.TRAIN == ("a", "b")
    assert cfg.SOLVER.MOMENTUM == 0.9


def test_file_without_version_is_read_as_the_latest(cfg, write):
    cfg.merge_from_file(write("SEED: 3"))
    assert (cfg.SEED, cfg.VERSION) == (3, 2)


@pytest.mark.parametrize(
    "text, error",
    [
        pytest.param("VERSION: 2\nSOLVER: {MAX_ITR: 1}", KeyError, id="unknown key"),
        pytest.param("VERSION: 2\nSOLVER: {MAX_ITER: many}", ValueError, id="wrong type"),
        pytest.param("VERSION: 3", AssertionError, id="newer version"),
    ],
)
def test_invalid_file_is_refused(cfg, write, text, error):
    with pytest.raises(error):
        cfg.merge_from_file(write(text))


def test_the_error_names_a_missing_file(cfg):
    with pytest.raises(AssertionError, match=r"nowhere\.yaml"):
        cfg.merge_from_file("nowhere.yaml")


@pytest.mark.parametrize(
    "key, text, value",
    [
        ("SOLVER.MAX_ITER", "5", 5),
        ("SOLVER.BASE_LR", "1e-4", 0.0001),
        ("SOLVER.STEPS", "(1, 2)", (1, 2)),
        ("INPUT.MIN_SIZE_TRAIN", "[400, 500]", (400, 500)),
        ("MODEL.WEIGHTS", "a/b.pth", "a/b.pth"),
        ("MODEL.MASK_ON", "True", True),
        ("SOLVER.WEIGHT_DECAY_BIAS", "0.1", 0.1),
    ],
)
def test_list_values_are_parsed(cfg, key, text, value):
    cfg.merge_from_list([key, text])
    assert dict(leaves(cfg))[key] == value


@pytest.mark.parametrize(
    "values, error",
    [
        pytest.param(["SOLVER.MAX_ITR", "1"], AssertionError, id="unknown key"),
        pytest.param(["SOLVER.MAX_ITER"], AssertionError, id="odd length"),
        pytest.param(["SOLVER.MAX_ITER", "0.5"], ValueError, id="wrong type"),
    ],
)
def test_invalid_list_is_refused(cfg, values, error):
    with pytest.raises(error, match=r"SOLVER\.MAX_IT"):
        cfg.merge_from_list(values)


def test_dump_and_load_give_the_same_config(cfg, write):
    cfg.merge_from_list(["SOLVER.STEPS", "(3, 4)", "OUTPUT_DIR", "there"])
    loaded = get_cfg()
    loaded.merge_from_file(write(cfg.dump()))
    assert yaml.safe_load(loaded.dump()) == yaml.safe_load(cfg.dump())
    assert loaded.SOLVER.STEPS == (3, 4)


class Model:
    @configurable
    def __init__(self, a, *, b=2, shape=None):
        """Model's doc"""
        self.values = (a, b, shape)

    @classmethod
    def from_config(cls, cfg, shape=None):
        return {"a": cfg.SOLVER.MAX_ITER, "shape": shape}


class Greedy(Model):
    @classmethod
    def from_config(cls, cfg, **kwargs):
        return {"a": len(kwargs), "b": 5}


@configurable(from_config=lambda cfg, c: {"a": cfg.SEED, "b": c})
def function(a, b=2, d=4):
    return a, b, d


@pytest.mark.parametrize(
    "build, values",
    [
        pytest.param(lambda cfg: Model(1).values, (1, 2, None), id="arguments"),
        pytest.param(lambda cfg: Model(cfg).values, (40000, 2, None), id="cfg"),
        pytest.param(lambda cfg: Model(cfg=cfg).values, (40000, 2, None), id="cfg by name"),
        pytest.param(lambda cfg: Model(cfg, "s").values, (40000, 2, "s"), id="argument of from_config"),
        pytest.param(lambda cfg: Model(cfg, b=3, a=0).values, (0, 3, None), id="explicit wins"),
        pytest.param(lambda cfg: Greedy(cfg, b=3, shape=1).values, (2, 5, None), id="from_config takes all"),
        pytest.param(lambda cfg: function(1), (1, 2, 4), id="function, arguments"),
        pytest.param(lambda cfg: function(cfg, c=7), (-1, 7, 4), id="function, cfg"),
        pytest.param(lambda cfg: function(cfg, c=7, d=8), (-1, 7, 8), id="function, explicit wins"),
    ],
)
def test_configurable_turns_a_config_into_arguments(cfg, build, values):
    assert build(cfg) == values


def test_configurable_keeps_from_config_and_accepts_parentheses(cfg):
    class Empty(Model):
        @configurable()
        def __init__(self, a, *, shape=None):
            self.values = a

    assert function.from_config(cfg, 3) == {"a": -1, "b": 3}
    assert Empty(cfg).values == 40000


class NoFromConfig:
    __init__ = Model.__init__


class NoClassmethod(NoFromConfig):
    def from_config(self, cfg):
        return {"a": 1}


class NoCfgFirst(NoFromConfig):
    @classmethod
    def from_config(cls, config):
        return {"a": 1}


@pytest.mark.parametrize(
    "build, error",
    [
        pytest.param(lambda cfg: NoFromConfig(a=1), AttributeError, id="no from_config"),
        pytest.param(lambda cfg: NoClassmethod(a=1), TypeError, id="no classmethod"),
        pytest.param(lambda cfg: NoCfgFirst(cfg), TypeError, id="cfg is not the first"),
        pytest.param(lambda cfg: Model(cfg, None, 3), TypeError, id="too many positional"),
        pytest.param(lambda cfg: Greedy(cfg, "s"), TypeError, id="positional unknown to from_config"),
        pytest.param(lambda cfg: function(cfg), TypeError, id="argument of from_config missing"),
    ],
)
def test_incorrect_use_of_configurable_is_refused(cfg, build, error):
    with pytest.raises(error, match="from_config|argument"):
        build(cfg)
