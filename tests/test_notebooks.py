"""The notebooks run from top to bottom, in order, and are stored with their outputs."""

from pathlib import Path

import pytest

from d2_detr.data.datasets import balloon
from d2_detr.data.datasets.synthetic import draw_dataset

ROOT = Path(__file__).parents[1]
# In the order to run them: the last one shows the model of the first.
NOTEBOOKS = ("finetune_detr.ipynb", "finetune_detectron2.ipynb", "view_balloon_validation.ipynb")
TINY = (
    "MODEL.DETR.ENC_LAYERS 1 MODEL.DETR.DEC_LAYERS 2 INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 "
    "SOLVER.IMS_PER_BATCH 4 SOLVER.MAX_ITER 4 SOLVER.STEPS () TEST.EVAL_PERIOD 2"
).split()
SETTINGS = f"""
HAS_GPU, OPTIONS = False, {TINY}
NUM_IMAGES, THRESHOLD = 2, 0.0
"""

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


def read(name):
    return nbformat.read(ROOT / "notebooks" / name, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_notebook_is_stored_with_its_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    install, settings, *work = code_cells(notebook)
    assert "%pip install" in install.source and "parameters" in settings.metadata["tags"]
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(work) + 3))
    kinds = {output.output_type for cell in work for output in cell.outputs}
    assert "error" not in kinds and {"stream", "execute_result"} <= kinds


def test_notebooks_run_on_a_small_model(tmp_path, monkeypatch):
    data = tmp_path / "datasets/drawn/balloon"
    for seed, (split, number) in enumerate({"train": 8, "val": 4}.items()):
        draw_dataset(data / split, number, size=64, seed=seed)
    balloon.convert(data)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    for name in NOTEBOOKS:
        notebook = read(name)
        settings = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
        notebook.cells.insert(settings + 1, nbformat.v4.new_code_cell(SETTINGS))
        nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    for written in (
        "finetune_detr/report.html",
        "finetune_detectron2/model_best.pth",
        "view_balloon_validation/overview.png",
    ):
        assert (tmp_path / "outputs" / written).is_file()
