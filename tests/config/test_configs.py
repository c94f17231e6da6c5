import pytest

from d2_detr.config import configs_folder, load_config

from detectron2.config import get_cfg
from detectron2.modeling import build_model

CONFIGS = sorted(configs_folder().rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_loads_by_file_name_and_builds(path):
    data_opts = ["MODEL.DETR.NUM_CLASSES", "2", "MODEL.DETR.STUFF_CLASSES", "(1,)"]
    cfg = load_config(path.name, [*data_opts, "MODEL.DEVICE", "cpu"])
    assert cfg.MODEL.META_ARCHITECTURE == "Detr"
    build_model(cfg)


def test_file_names_of_configs_are_unique():
    assert len({path.name for path in CONFIGS}) == len(CONFIGS)


def test_detr_config_has_the_values_of_the_official_wrapper():
    cfg = load_config("detr_256_6_6_torchvision.yaml", [])
    solver, detr = cfg.SOLVER, cfg.MODEL.DETR
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.STEPS, solver.MAX_ITER) == (64, 1e-4, (369600,), 554400)
    assert (solver.WARMUP_FACTOR, solver.WARMUP_ITERS, solver.WEIGHT_DECAY) == (1.0, 10, 1e-4)
    assert (solver.OPTIMIZER, solver.BACKBONE_MULTIPLIER) == ("ADAMW", 0.1)
    clip = solver.CLIP_GRADIENTS
    assert (clip.ENABLED, clip.CLIP_TYPE, clip.CLIP_VALUE, clip.NORM_TYPE) == (True, "full_model", 0.01, 2.0)
    assert (detr.NUM_CLASSES, detr.NUM_OBJECT_QUERIES, detr.GIOU_WEIGHT, detr.L1_WEIGHT) == (80, 100, 2.0, 5.0)
    assert (detr.HIDDEN_DIM, detr.ENC_LAYERS, detr.DEC_LAYERS, detr.NHEADS) == (256, 6, 6, 8)
    assert (detr.DIM_FEEDFORWARD, detr.DROPOUT, detr.PRE_NORM, detr.DEEP_SUPERVISION) == (2048, 0.1, False, True)
    assert detr.NO_OBJECT_WEIGHT == 0.1 and detr.FROZEN_WEIGHTS == ""
    assert cfg.INPUT.MIN_SIZE_TRAIN == (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    assert (cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST) == (1333, 800, 1333)
    assert (cfg.INPUT.CROP.TYPE, list(cfg.INPUT.CROP.SIZE), cfg.INPUT.FORMAT) == ("absolute_range", [384, 600], "RGB")
    assert cfg.TEST.EVAL_PERIOD == 4000 and not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    assert cfg.DATASETS.TRAIN == ("coco_2017_train",) and cfg.DATASETS.TEST == ("coco_2017_val",)


def test_segm_config_has_the_values_of_the_official_wrapper():
    cfg = load_config("detr_segm_256_6_6_torchvision.yaml", [])
    boxes = load_config("detr_256_6_6_torchvision.yaml", [])
    assert (cfg.MODEL.MASK_ON, cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER) == (True, (55440,), 92400)
    assert (cfg.SOLVER.CLIP_GRADIENTS, cfg.SOLVER.IMS_PER_BATCH) == (boxes.SOLVER.CLIP_GRADIENTS, 64)
    assert (cfg.MODEL.DETR.FROZEN_WEIGHTS, cfg.DATASETS) == ("", boxes.DATASETS)


def test_a_config_of_the_official_wrapper_loads_unchanged(tmp_path):
    """It names no backbone builder, and weights by Detectron2's name for them."""
    path = tmp_path / "wrapper.yaml"
    path.write_text(
        'MODEL: {META_ARCHITECTURE: "Detr", WEIGHTS: "detectron2://ImageNetPretrained/torchvision/R-50.pkl", '
        "MASK_ON: False, PIXEL_MEAN: [123.675, 116.280, 103.530], PIXEL_STD: [58.395, 57.120, 57.375], "
        'RESNETS: {DEPTH: 50, STRIDE_IN_1X1: False, OUT_FEATURES: ["res2", "res3", "res4", "res5"]}, '
        "DETR: {GIOU_WEIGHT: 2.0, L1_WEIGHT: 5.0, NUM_OBJECT_QUERIES: 100}}\n"
        'SOLVER: {OPTIMIZER: "ADAMW", BACKBONE_MULTIPLIER: 0.1, '
        'CLIP_GRADIENTS: {ENABLED: True, CLIP_TYPE: "full_model", CLIP_VALUE: 0.01, NORM_TYPE: 2.0}}\nVERSION: 2\n'
    )
    model = build_model(load_config(str(path), ["MODEL.DEVICE", "cpu"]))
    assert "detr.backbone.0.body.layer4.2.conv3.weight" in model.state_dict()


def test_other_defaults_are_those_of_detectron2():
    plain, ours = get_cfg(), load_config("", [])
    for section in ("SOLVER", "TEST", "DATALOADER"):
        assert {key: ours[section][key] for key in plain[section]} == dict(plain[section])
