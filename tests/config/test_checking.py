"""Every key that has an effect accepts only values that make sense."""

import pytest

from d2_detr.config import add_detr_config, load_config, merge_options, resolve_config
from d2_detr.config.checking import RULES, check_config, check_training, num_parameters
from d2_detr.structures.dataset import Datasets
from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model

COMPACT = "detr_compact_balloon.yaml"

WRONG = [
    ("SOLVER.MAX_ITER", "0"), ("SOLVER.MAX_ITER", "None"), ("SOLVER.MAX_ITER", "1.5"), ("SOLVER.MAX_ITER", "True"),
    ("SOLVER.IMS_PER_BATCH", "0"), ("SOLVER.IMS_PER_BATCH", "-2"), ("SOLVER.IMS_PER_BATCH", "1000000000"),
    ("SOLVER.CHECKPOINT_PERIOD", "0"), ("SOLVER.MAX_EPOCHS", "-1"), ("SOLVER.BASE_LR", "-1"), ("SOLVER.BASE_LR", "0"),
    ("SOLVER.MAX_EPOCHS", float("inf")), ("SOLVER.MAX_EPOCHS", float("nan")), ("SOLVER.BASE_LR", float("nan")),
    ("SOLVER.BASE_LR", float("inf")), ("SOLVER.BASE_LR", "1e999"), ("SOLVER.BASE_LR", "1" + "0" * 400),
    ("SOLVER.OPTIMIZER", "ADAM"), ("SOLVER.LR_SCHEDULER_NAME", "Cosine"), ("SOLVER.WARMUP_METHOD", "step"),
    ("SOLVER.WARMUP_ITERS", "-1"), ("SOLVER.WARMUP_FACTOR", "-1"), ("SOLVER.GAMMA", "2"), ("SOLVER.MOMENTUM", "1"),
    ("SOLVER.STEPS", "(5, 3)"), ("SOLVER.STEPS", "(3, 3)"), ("SOLVER.STEPS", "(-1,)"), ("SOLVER.STEPS", "5"),
    ("SOLVER.WEIGHT_DECAY", "-0.1"), ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "-1"), ("SOLVER.EMA_DECAY", "1"),
    ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "all"), ("SOLVER.CLIP_GRADIENTS.NORM_TYPE", "0"), ("SOLVER.PATIENCE", "-1"),
    ("SOLVER.BACKBONE_MULTIPLIER", "-1"), ("SOLVER.AMP.ENABLED", "1"), ("SOLVER.REFERENCE_WORLD_SIZE", "-1"),
    ("MODEL.DEVICE", "gpu"), ("MODEL.DEVICE", "None"), ("MODEL.DEVICE", "cuda:x"), ("MODEL.DEVICE", ""),
    ("MODEL.WEIGHTS", "a\0b"), ("MODEL.PIXEL_MEAN", "[1, 2]"), ("MODEL.PIXEL_STD", "[1, 0, 1]"),
    ("MODEL.PIXEL_STD", [1.0, float("nan"), 1.0]), ("MODEL.BACKBONE.FREEZE_AT", "6"), ("MODEL.MASK_ON", "None"),
    ("MODEL.RESNETS.OUT_FEATURES", "[]"), ("MODEL.RESNETS.OUT_FEATURES", "[[1]]"),
    ("MODEL.DETR.HIDDEN_DIM", "0"), ("MODEL.DETR.HIDDEN_DIM", "1000000000"), ("MODEL.DETR.NUM_OBJECT_QUERIES", "0"),
    ("MODEL.DETR.NUM_OBJECT_QUERIES", "1000000000"), ("MODEL.DETR.ENC_LAYERS", "-1"), ("MODEL.DETR.DEC_LAYERS", "0"),
    ("MODEL.DETR.NHEADS", "0"), ("MODEL.DETR.DROPOUT", "1.5"), ("MODEL.DETR.DIM_FEEDFORWARD", "0"),
    ("MODEL.DETR.NUM_CLASSES", "0"), ("MODEL.DETR.NUM_CLASSES", "-2"), ("MODEL.DETR.NUM_CLASSES", "1000000000"),
    ("MODEL.DETR.NO_OBJECT_WEIGHT", "0"), ("MODEL.DETR.L1_WEIGHT", "-1"), ("MODEL.DETR.SCORE_THRESH_TEST", "2"),
    ("MODEL.DETR.STUFF_CLASSES", "(-1,)"), ("MODEL.DETR.STUFF_CLASSES", "('sky',)"), ("MODEL.DETR.AUTOCAST", "fp8"),
    ("INPUT.MIN_SIZE_TRAIN", "()"), ("INPUT.MIN_SIZE_TRAIN", "(0,)"), ("INPUT.MIN_SIZE_TRAIN", "(100000,)"),
    ("INPUT.MIN_SIZE_TRAIN", "('a',)"), ("INPUT.MAX_SIZE_TRAIN", "0"), ("INPUT.MIN_SIZE_TEST", "-1"),
    ("INPUT.MAX_SIZE_TEST", "1000000000"), ("INPUT.RANDOM_FLIP", "both"), ("INPUT.FORMAT", "GRAY"),
    ("INPUT.MASK_FORMAT", "rle"), ("INPUT.CROP.SIZE", "(0, 5)"), ("INPUT.CROP.SIZE", "(5,)"),
    ("DATALOADER.NUM_WORKERS", "-1"), ("DATALOADER.NUM_WORKERS", "5000"), ("DATALOADER.SAMPLER_TRAIN", "Random"),
    ("DATASETS.TRAIN", "my_dataset"), ("DATASETS.TRAIN", "(1,)"), ("OUTPUT_DIR", ""), ("OUTPUT_DIR", "a" * 5000),
    ("SEED", str(2**32)), ("TEST.EVAL_PERIOD", "-1"), ("TEST.EVAL_EPOCHS", float("inf")), ("VERSION", "1"),
    ("TEST.EXPECTED_RESULTS", "[['bbox', 'AP']]"), ("FLOAT32_PRECISION", "low"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG, ids=[f"{key}-{str(value)[:12]!r}" for key, value in WRONG])
def test_wrong_value_is_one_message_with_its_key(key, value):
    with pytest.raises(InputError, match=rf"^{key} .{{1,100}}: expected ") as error:
        load_config(COMPACT, [key, value])
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(("key", "value"), WRONG[::9], ids=[key for key, _ in WRONG[::9]])
def test_scripts_that_set_a_wrong_value_are_told(key, value):
    cfg = load_config(COMPACT, ["MODEL.DETR.NUM_CLASSES", 3, "MODEL.DEVICE", "cpu"])
    *path, name = key.split(".")
    node = cfg
    for part in path:
        node = node[part]
    node[name] = value
    for act in (check_config, build_model, lambda cfg: resolve_config(cfg, Datasets([], []))):
        with pytest.raises(InputError, match=rf"^{key} "):
            act(cfg)


def test_every_key_of_this_project_has_a_rule():
    def leaves(node, prefix=""):
        for name, value in node.items():
            yield from leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]

    plain, ours = get_cfg(), get_cfg()
    add_detr_config(ours)
    assert set(leaves(ours)) - set(leaves(plain)) <= RULES.keys() <= set(leaves(ours))
    embedded = pytest.importorskip("detectron2.config.config")
    assert set(getattr(embedded, "READ_KEYS", ())) <= RULES.keys()


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.DETR.NHEADS", "5"], "MODEL.DETR.HIDDEN_DIM 128: expected a multiple of NHEADS 5, and of 4"),
        (["MODEL.DETR.HIDDEN_DIM", "126", "MODEL.DETR.NHEADS", "1"], "HIDDEN_DIM 126: expected a multiple of"),
        (["MODEL.DETR.HIDDEN_DIM", "8192"], "more than 500000000 parameters"),
        (["MODEL.DETR.DIM_FEEDFORWARD", "65536", "MODEL.DETR.ENC_LAYERS", "100"], "more than 500000000 parameters"),
        (["INPUT.MIN_SIZE_TRAIN_SAMPLING", "range"], "the smallest and the largest side"),
        (["MODEL.META_ARCHITECTURE", "Detrr"], "META_ARCHITECTURE 'Detrr': expected \"Detr\""),
        (["MODEL.BACKBONE.NAME", "resnet"], "BACKBONE.NAME 'resnet': expected one of .*torchvision"),
    ],
    ids=["heads", "width", "wide", "large", "range", "architecture", "backbone"],
)
def test_values_that_contradict_each_other_are_refused(opts, message):
    cfg = load_config(COMPACT, opts)
    with pytest.raises(InputError, match=message):
        check_config(cfg)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.AMP.ENABLED", "True"], "SOLVER.AMP.ENABLED True with MODEL.DEVICE cpu"),
        (["SOLVER.IMS_PER_BATCH", "5"], "IMS_PER_BATCH 5: expected a multiple of the 2 processes"),
        (
            ["SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.BASE_LR_END", "1"],
            "BASE_LR_END 1.0: expected at most",
        ),
    ],
    ids=["amp", "batch", "cosine"],
)
def test_a_training_that_cannot_run_is_refused(opts, message):
    cfg = load_config(COMPACT, ["MODEL.DEVICE", "cpu", *opts])
    check_config(cfg)  # an evaluation can
    with pytest.raises(InputError, match=message):
        check_training(cfg, 2)


def test_estimated_size_is_close_to_the_real_one():
    cfg = load_config("detr_segm_256_6_6_torchvision.yaml", ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    real = sum(p.numel() for name, p in model.named_parameters() if "backbone" not in name)
    assert num_parameters(cfg.MODEL.DETR) == pytest.approx(real, rel=0.2)


def test_a_folder_may_be_named_like_a_number():
    cfg = load_config(COMPACT, ["OUTPUT_DIR", "2026", "MODEL.WEIGHTS", "None"])
    assert (cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS) == ("2026", "None")


def test_later_options_win_whatever_their_types():
    cfg = load_config(COMPACT, ["MODEL.DETR.DROPOUT", "0", "MODEL.DETR.DROPOUT", "0.2"])
    assert cfg.MODEL.DETR.DROPOUT == 0.2


def test_options_keep_the_types_of_the_defaults():
    cfg = load_config(COMPACT, ["SOLVER.STEPS", [1, 2], "MODEL.PIXEL_MEAN", (1, 2, 3)])
    assert (cfg.SOLVER.STEPS, cfg.MODEL.PIXEL_MEAN) == ((1, 2), [1, 2, 3])


NOT_PLAIN = ({"a": 1}, {1}, 1j, b"x", [object()], [{}], [10**5000])


@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda value: type(value).__name__)
def test_values_that_no_file_could_hold_are_refused(value):
    cfg = CfgNode({"A": [1]})
    with pytest.raises(InputError, match="expected a value like"):
        merge_options(cfg, ["A", value])
