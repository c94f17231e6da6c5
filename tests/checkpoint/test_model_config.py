"""The config for the evaluation of a trained model."""

import pytest

from d2_detr.checkpoint.model_config import load_trained_config
from d2_detr.config import load_config
from d2_detr.utils.errors import InputError

CONFIG = "detr_compact_balloon_drawn.yaml"


@pytest.fixture
def folder(tmp_path):
    """The folder of a training, moved after the training."""
    (tmp_path / "config.yaml").write_text(load_config(CONFIG, ["OUTPUT_DIR", "outputs/elsewhere"]).dump())
    return tmp_path


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        (["model_last", "model_final", "model_best"], "model_best"),
        (["model_last", "model_final"], "model_final"),
        (["model_last"], "model_last"),
    ],
    ids=["best", "final", "interrupted"],
)
def test_best_model_of_a_training_is_evaluated_in_its_folder(folder, saved, expected):
    for name in saved:
        (folder / f"{name}.pth").touch()
    cfg = load_trained_config(str(folder / "config.yaml"), [])
    assert (str(folder / f"{expected}.pth"), str(folder)) == (cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)
    cfg = load_trained_config(str(folder / "config.yaml"), ["MODEL.WEIGHTS", "other.pth", "OUTPUT_DIR", "other"])
    assert (cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR) == ("other.pth", "other")


def test_evaluation_without_a_model_is_an_error(folder):
    with pytest.raises(InputError, match=r"config\.yaml has no MODEL\.WEIGHTS: add --weights"):
        load_trained_config(str(folder / "config.yaml"), [])
