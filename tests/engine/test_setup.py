import pytest
import torch
import torchvision

from d2_detr.utils.errors import InputError
from d2_detr.workflows.setup import load_config, resolve_schedule, setup
from tests import shapes

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


def test_evaluations_are_counted_in_epochs_too(sixty_one_pictures):
    cfg = config(sixty_one_pictures, MAX_ITER=100, IMS_PER_BATCH=4)
    cfg.TEST.EVAL_EPOCHS = 2
    resolve_schedule(cfg)
    assert (cfg.TEST.EVAL_PERIOD, cfg.TEST.EVAL_EPOCHS, cfg.SOLVER.MAX_ITER) == (31, 0, 100)  # 2 x 61 / 4
    cfg.TEST.EVAL_EPOCHS, cfg.TEST.EVAL_PERIOD = 2, 7
    resolve_schedule(cfg)
    assert (cfg.TEST.EVAL_PERIOD, cfg.TEST.EVAL_EPOCHS) == (7, 0), "what is asked for in iterations is meant"


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


# ---- mistakes show before anything is overwritten


@pytest.fixture
def own_data(monkeypatch, tmp_path):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    return shapes.draw_shapes(tmp_path / "coco")


def start(root, output_dir, *opts, eval_only=False):
    opts = ["OUTPUT_DIR", str(output_dir), "MODEL.DEVICE", "cpu", "MODEL.DETR.AUTOCAST", "off", *map(str, opts)]
    return setup(load_config("detr_compact_balloon.yaml", opts, str(root)), evaluation_only=eval_only)


def edit(root, change):
    coco = shapes.read(root, "train")
    change(coco)
    shapes.write(coco, root, "train")


def damage_annotations(change):
    return lambda root: edit(root, lambda coco: coco["annotations"][2].update(change))


def rewrite(name, content):
    return lambda root: (root / name).write_bytes(content)


MISTAKES = {
    "no_annotations": (lambda root: (root / "annotations/custom_val.json").unlink(), "custom_val.json: no such file"),
    "not_json": (rewrite("annotations/custom_train.json", b"{'a'}"), "custom_train.json: not a complete JSON file"),
    "cut_short": (rewrite("annotations/custom_train.json", b'{"images": ['), "custom_train.json: not a complete JSON"),
    "another_format": (rewrite("annotations/custom_train.json", b'{"shapes": []}'), "no list 'images', so not COCO's"),
    "picture_missing": (lambda root: (root / "val2017/00002.png").unlink(), "val2017/00002.png: no such picture"),
    "picture_corrupt": (rewrite("train2017/00002.png", b"GIF?"), "train2017/00002.png: not a picture"),
    "two_points": (
        damage_annotations({"segmentation": [[1, 2, 3, 4]]}),
        "annotations[2] (id 2): segmentation has a pol",
    ),
    "polygon_outside": (damage_annotations({"segmentation": [[99, 2, 98, 4, 97, 9]]}), "a polygon outside of the pict"),
    "no_area": (damage_annotations({"bbox": [1, 2, 0, 4]}), "annotations[2] (id 2): bbox [1, 2, 0, 4] has no area"),
    "negative": (damage_annotations({"bbox": [9, 9, -5, 4]}), "annotations[2] (id 2): bbox [9, 9, -5, 4] has a negat"),
    "unknown_category": (damage_annotations({"category_id": 8}), "annotations[2] (id 2): unknown category_id 8"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_data_is_one_message_and_overwrites_nothing(own_data, tmp_path, mistake):
    damage, message = MISTAKES[mistake]
    damage(own_data)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("of an earlier run")
    with pytest.raises((InputError, FileNotFoundError)) as error:
        start(own_data, tmp_path / "run")
    assert message in str(error.value)
    assert (tmp_path / "run" / "config.yaml").read_text() == "of an earlier run"
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"config.yaml", "log.txt"}


def test_corners_given_as_boxes_are_told_from_sizes(own_data, tmp_path):
    def to_corners(coco):
        for entry in coco["annotations"]:
            x, y, w, h = entry["bbox"]
            entry["bbox"] = [x, y, x + w, y + h]

    edit(own_data, to_corners)
    with pytest.raises(InputError, match=r"custom_train\.json: the boxes look like corners"):
        start(own_data, tmp_path / "run")


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("MODEL.DETR.NUM_CLASSES", 2), "NUM_CLASSES is 2, but dataset custom_train has 3 categories; set it to 3"),
        (("MODEL.WEIGHTS", "no_such.pth"), r"no_such\.pth: no such checkpoint"),
        (("MODEL.WEIGHTS", "detr://r5"), "detr://r5: no such model; published are detr://r50"),
    ],
    ids=["class_count", "no_weights", "no_name"],
)
def test_a_mistake_in_the_config_is_one_message_and_writes_nothing(own_data, tmp_path, opts, message):
    with pytest.raises((InputError, FileNotFoundError), match=message):
        start(own_data, tmp_path / "run", *opts)
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"log.txt"}


def test_weights_that_leave_the_class_head_untrained_are_no_start_for_an_evaluation(own_data, tmp_path):
    weights = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), weights)
    start(own_data, tmp_path / "run", "MODEL.WEIGHTS", weights)
    with pytest.raises(InputError, match=r"resnet18\.pth: of the backbone alone.*nothing trains it here"):
        start(own_data, tmp_path / "run", "MODEL.WEIGHTS", weights, eval_only=True)


def test_a_run_that_is_resumed_does_not_ask_for_the_weights_that_it_began_with(own_data, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last_checkpoint").write_text("model_0000001.pth")
    opts = ["OUTPUT_DIR", str(tmp_path / "run"), "MODEL.WEIGHTS", "no_longer_there.pth"]
    setup(load_config("detr_compact_balloon.yaml", opts, str(own_data)), resume=True)
