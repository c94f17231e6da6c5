"""Requirements and output folder of an evaluation."""

from pathlib import Path

import pytest

from d2_detr.config import load_config
from d2_detr.utils.errors import InputError
from d2_detr.workflows.evaluate import _evaluation_folder, evaluate

CONFIG = "detr_compact_balloon_drawn.yaml"


@pytest.mark.parametrize("resume", [False, True])
def test_evaluation_without_a_test_set_is_an_error(tmp_path, resume):
    cfg = load_config(CONFIG, ["DATASETS.TEST", "()", "OUTPUT_DIR", str(tmp_path / "run")])
    with pytest.raises(InputError, match=r"DATASETS\.TEST is empty"):
        evaluate(cfg, resume=resume)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("test_set", "folder"),
    [("balloon_drawn_val", "inference"), ("balloon_drawn_train", "inference/balloon_drawn_train")],
    ids=["training_config", "another"],
)
def test_another_test_set_has_a_separate_folder(tmp_path, test_set, folder):
    cfg = load_config(CONFIG, ["OUTPUT_DIR", str(tmp_path)])
    Path(tmp_path / "config.yaml").write_text(cfg.dump())
    cfg.DATASETS.TEST = (test_set,)
    assert _evaluation_folder(cfg) == tmp_path / folder
