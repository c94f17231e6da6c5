"""Errors about missing features, hints about config keys."""

import importlib
import logging
import re
import sys
from pathlib import Path

import pytest

import detectron2
from detectron2.config import get_cfg

PROJECT = Path(__file__).parents[2] / "d2_detr"
HINT = "install the real Detectron2 (see the README of d2_detr, 'Install')"

pytestmark = pytest.mark.skipif("embedded" not in detectron2.__version__, reason="specific to the embedded detectron2")


@pytest.mark.parametrize(
    "name",
    [
        "model_zoo",
        "config.LazyConfig",
        "data.build_batch_data_loader",
        "data.samplers.RepeatFactorTrainingSampler",
        "data.transforms.Resize",
        "engine.DefaultPredictor",
        "engine.defaults.create_ddp_model",
        "engine.hooks.CallbackHook",
        "engine.launch",
        "evaluation.SemSegEvaluator",
        "layers.cat",
        "modeling.FPN",
        "modeling.backbone",
        "solver.build_optimizer",
        "solver.build.get_default_optimizer_params",
        "structures.Keypoints",
        "structures.boxes.pairwise_iou",
        "utils.comm.reduce_dict",
        "utils.env.TORCH_VERSION",
        "utils.logger.log_first_n",
        "utils.serialize",
        "utils.visualizer",
    ],
)
def test_a_missing_name_is_an_import_error_with_a_hint(name):
    module, _, attribute = f"detectron2.{name}".rpartition(".")
    with pytest.raises(ImportError) as error:
        exec(f"from {module} import {attribute}")
    assert str(error.value).endswith(f" lacks detectron2.{name}; {HINT}")


@pytest.mark.parametrize("access", ["modeling.build_roi_heads", "utils.comm.reduce_dict"])
def test_a_missing_attribute_is_an_error_with_a_hint(access):
    with pytest.raises(ImportError, match=re.escape(f" lacks detectron2.{access}; {HINT}")):
        eval(f"detectron2.{access}")


@pytest.mark.parametrize("module", ["model_zoo", "export", "projects.point_rend", "engine.launch"])
def test_a_missing_module_is_an_error_with_a_hint(module):
    with pytest.raises(ModuleNotFoundError, match=re.escape(HINT)):
        importlib.import_module(f"detectron2.{module}")


def test_private_names_and_submodules_behave_as_usual():
    assert not hasattr(detectron2, "__wrapped__")
    assert not hasattr(detectron2.config, "_private")
    for name in [name for name in sys.modules if name.startswith("detectron2.utils")]:
        assert importlib.import_module(name) is sys.modules[name]
    from detectron2.utils import comm

    assert comm.get_world_size() == 1


@pytest.mark.parametrize("text", ["VERSION: 1", "VERSION: 0"])
def test_configs_of_older_versions_are_refused(tmp_path, text):
    (tmp_path / "old.yaml").write_text(text)
    with pytest.raises(NotImplementedError, match=re.escape(HINT)):
        get_cfg().merge_from_file(str(tmp_path / "old.yaml"))


@pytest.mark.parametrize("mode", ["XYXY_ABS", "XYWH_ABS"])
def test_rotated_boxes_are_refused(mode):
    from detectron2.structures import BoxMode

    with pytest.raises(NotImplementedError, match=re.escape(HINT)):
        BoxMode.convert([5, 5, 2, 2, 45], BoxMode.XYWHA_ABS, BoxMode[mode])


def test_an_unknown_key_suggests_similar_ones(tmp_path):
    with pytest.raises(AssertionError, match=r"SOLVER.MAX_ITR \(did you mean SOLVER.MAX_ITER"):
        get_cfg().merge_from_list(["SOLVER.MAX_ITR", "1"])
    (tmp_path / "typo.yaml").write_text("VERSION: 2\nMODEL: {DEVISE: cpu}")
    with pytest.raises(KeyError, match=r"MODEL.DEVISE \(did you mean MODEL.DEVICE"):
        get_cfg().merge_from_file(str(tmp_path / "typo.yaml"))
    with pytest.raises(AssertionError, match=r"^Non-existent key: QQQQ$"):
        get_cfg().merge_from_list(["QQQQ", "1"])


@pytest.mark.parametrize(
    "changes, warned",
    [
        pytest.param([], [], id="defaults"),
        pytest.param(["SOLVER.MAX_ITER", 5, "OUTPUT_DIR", "x"], [], id="read keys"),
        pytest.param(
            ["MODEL.RPN.LOSS_WEIGHT", 2.0, "SEED", 1, "MODEL.FPN.NORM", "BN"],
            ["MODEL.FPN.NORM, MODEL.RPN.LOSS_WEIGHT"],
            id="unread keys",
        ),
        pytest.param(["MODEL.MINE", 5], [], id="added key"),
    ],
)
def test_changed_keys_without_effect_cause_a_warning(caplog, changes, warned):
    from detectron2.config.config import warn_unread

    cfg = get_cfg()
    cfg.MODEL.MINE = 1
    cfg.merge_from_list(changes)
    with caplog.at_level(logging.WARNING, "detectron2.config.config"):
        warn_unread(cfg)
    assert [message.rpartition(": ")[2] for message in caplog.messages] == warned


def test_every_key_that_the_code_reads_is_listed():
    from detectron2.config.config import READ_KEYS, flatten

    known = set(dict(flatten(get_cfg())))
    assert known >= READ_KEYS
    code = "\n".join(path.read_text() for path in PROJECT.rglob("*.py"))  # the plugin and the embedded package
    read = set(re.findall(r"\bcfg\.([A-Z][A-Z0-9_]*(?:\.[A-Z][A-Z0-9_]*)*)", code))
    read |= {f"SOLVER.{key}" for key in re.findall(r"\bsolver\.([A-Z][A-Z0-9_.]*[A-Z0-9])", code)}
    assert len(read) > 20
    assert read & known <= READ_KEYS
