"""A config is loaded from defaults, a file, a dataset folder, and KEY VALUE pairs."""

from pathlib import Path

import pytest
import torch

from d2_detr.config import load_config
from d2_detr.utils.errors import InputError


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.DETR.NUM_CLASES", "3"], "NUM_CLASES"),
        (["MODEL.WEIGHTS"], "pairs"),
        (["SOLVER.MAX_ITER", "many"], "many"),
        (["MODEL.WEIGHTS.FILE", "1"], "MODEL.WEIGHTS.FILE"),
    ],
    ids=["misspelt_key", "value_missing", "wrong_type", "value_for_section"],
)
def test_wrong_options_are_refused_by_name(opts, message):
    with pytest.raises(InputError, match=message):
        load_config("detr_256_6_6_torchvision.yaml", opts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("MODEL:\n  DETR:\n    NUM_QUERYS: 5\n", "NUM_QUERYS"),
        ("SOLVER:\n  MAX_ITER: many\n", "SOLVER.MAX_ITER"),
        ("SOLVER: [1\n", "line 2: not valid YAML: expected ',' or '\\]'"),
        ("SOLVER: 3\n", "line 1: SOLVER 3: a section; set its keys"),
        ("just text\n", "line 1: expected sections such as SOLVER:"),
    ],
    ids=["misspelt_key", "wrong_type", "not_yaml", "no_section", "text"],
)
def test_a_mistake_in_a_file_is_an_error_with_its_name(tmp_path, content, message):
    path = tmp_path / "my.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"my\.yaml.*{message}|{message}.*my\.yaml"):
        load_config(str(path))


@pytest.mark.parametrize("key", ["SOLVER.MAX_EPOCHS", "TEST.EVAL_EPOCHS"])
@pytest.mark.parametrize("in_file", [0.5, 10])
@pytest.mark.parametrize("option", [0.25, 20])
def test_epochs_may_be_integers_or_fractions(tmp_path, key, in_file, option):
    section, name = key.split(".")
    (tmp_path / "my.yaml").write_text(f"{section}:\n  {name}: {in_file}\n")
    cfg = load_config(tmp_path / "my.yaml")
    assert cfg[section][name] == in_file
    assert load_config(tmp_path / "my.yaml", [key, str(option)])[section][name] == option


def test_unknown_config_error_lists_the_shipped_ones():
    with pytest.raises(FileNotFoundError, match=r"detr_256_6_6_torchvision\.yaml"):
        load_config("detr.yaml")


def test_data_folder_replaces_datasets_and_class_count():
    cfg = load_config("detr_256_6_6_torchvision.yaml", [], "path/to/coco")
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("custom_train",), ("custom_val",))
    assert (str(Path("path/to/coco").absolute()), -1) == (cfg.DATASETS.CUSTOM, cfg.MODEL.DETR.NUM_CLASSES)
    assert load_config("", ["MODEL.DETR.NUM_CLASSES", "5"], "path/to/coco").MODEL.DETR.NUM_CLASSES == 5


def test_panoptic_config_uses_the_panoptic_datasets():
    cfg = load_config("detr_panoptic_r50_custom.yaml", [], "path/to/coco")
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("custom_train_panoptic",), ("custom_val_panoptic",))


@pytest.mark.parametrize("key", ["SOLVER.BASE_LR", "MODEL.DETR.L1_WEIGHT"])
def test_integers_replace_floats(tmp_path, key):
    *path, name = key.split(".")
    lines = [f"{'  ' * depth}{part}:" for depth, part in enumerate([*path, name])]
    (tmp_path / "my.yaml").write_text("\n".join(lines) + " 1\n")
    for cfg in (load_config(tmp_path / "my.yaml"), load_config("", [key, "1"]), load_config("", [key, 1])):
        value = cfg
        for part in key.split("."):
            value = value[part]
        assert value == 1 and isinstance(value, float)


def test_missing_gpu_changes_only_a_device_from_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "config.yaml").write_text("MODEL:\n  DEVICE: cuda:1\n")
    assert load_config(tmp_path / "config.yaml").MODEL.DEVICE == "cpu"
    assert load_config("", ["MODEL.DEVICE", "cuda"]).MODEL.DEVICE == "cuda"


@pytest.mark.parametrize("name", ["@run", "*", "it's", "a: b", "[1"])
def test_text_need_not_be_yaml_or_python(name):
    assert name == load_config("", ["OUTPUT_DIR", name]).OUTPUT_DIR
