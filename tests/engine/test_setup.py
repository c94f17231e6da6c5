import pytest

from d2_detr.engine import load_config
from d2_detr.engine.setup import resolve_schedule
from d2_detr.errors import InputError

from detectron2.data import DatasetCatalog


@pytest.fixture
def sixty_one_pictures():
    name = "sixty_one_pictures"
    DatasetCatalog.register(name, lambda: [{"image_id": i, "annotations": []} for i in range(61)])
    yield name
    DatasetCatalog.remove(name)


def config(dataset, **solver):
    opts = ["DATASETS.TRAIN", f"('{dataset}',)", "DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False"]
    return load_config("", opts + [part for key, value in solver.items() for part in (f"SOLVER.{key}", str(value))])


def test_epochs_become_iterations_and_fractions_become_steps(sixty_one_pictures):
    cfg = config(sixty_one_pictures, MAX_EPOCHS=10, IMS_PER_BATCH=2, STEPS=(0.5, 0.8))
    resolve_schedule(cfg)
    assert cfg.SOLVER.MAX_ITER == 305  # 10 x 61 / 2
    assert cfg.SOLVER.STEPS == (152, 244)
    resolve_schedule(cfg)
    assert cfg.SOLVER.MAX_ITER == 305, "a config that was written repeats the run"


def test_without_epochs_the_iterations_stay(sixty_one_pictures):
    cfg = config(sixty_one_pictures, MAX_ITER=7, STEPS=(5,))
    resolve_schedule(cfg)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (7, (5,))


@pytest.mark.parametrize(
    ("epochs", "steps"), [(10, (369600,)), (0, (0.5,)), (10, (0.5, 100))],
    ids=["iterations-with-epochs", "fractions-without-epochs", "mixed"],
)  # fmt: skip
def test_steps_of_the_wrong_kind_are_refused(sixty_one_pictures, epochs, steps):
    with pytest.raises(InputError, match="SOLVER.STEPS"):
        resolve_schedule(config(sixty_one_pictures, MAX_EPOCHS=epochs, STEPS=steps))


@pytest.mark.parametrize(
    ("opts", "message"),
    [(["MODEL.DETR.NUM_CLASES", "3"], "NUM_CLASES"), (["MODEL.WEIGHTS"], "pairs")],
    ids=["misspelt-key", "value-missing"],
)
def test_options_that_make_no_sense_are_refused_by_name(opts, message):
    with pytest.raises(InputError, match=message):
        load_config("detr_256_6_6_torchvision.yaml", opts)


def test_a_misspelt_key_in_a_file_is_refused_by_name(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("MODEL:\n  DETR:\n    NUM_QUERYS: 5\n")
    with pytest.raises(InputError, match=r"my\.yaml.*NUM_QUERYS"):
        load_config(str(path), [])


def test_an_unknown_config_file_lists_the_shipped_ones():
    with pytest.raises(FileNotFoundError, match=r"detr_256_6_6_torchvision\.yaml"):
        load_config("detr.yaml", [])
