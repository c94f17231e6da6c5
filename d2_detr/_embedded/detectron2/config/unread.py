"""A changed key that nothing reads is a training that silently differs from what its config says."""

import json
import logging

from .config import CfgNode, flatten, get_cfg

logger = logging.getLogger(__name__)

_READ = {
    "": "VERSION OUTPUT_DIR SEED CUDNN_BENCHMARK FLOAT32_PRECISION",
    "MODEL.": "META_ARCHITECTURE DEVICE WEIGHTS PIXEL_MEAN PIXEL_STD MASK_ON",
    "MODEL.BACKBONE.": "NAME FREEZE_AT",
    "MODEL.RESNETS.": "DEPTH NORM OUT_FEATURES RES5_DILATION STRIDE_IN_1X1",
    "INPUT.": "FORMAT MIN_SIZE_TRAIN MIN_SIZE_TRAIN_SAMPLING MAX_SIZE_TRAIN MIN_SIZE_TEST MAX_SIZE_TEST "
    "RANDOM_FLIP MASK_FORMAT CROP.ENABLED CROP.TYPE CROP.SIZE",
    "DATASETS.": "TRAIN TEST",
    "DATALOADER.": "NUM_WORKERS ASPECT_RATIO_GROUPING FILTER_EMPTY_ANNOTATIONS SAMPLER_TRAIN",
    "SOLVER.": "MAX_ITER IMS_PER_BATCH REFERENCE_WORLD_SIZE CHECKPOINT_PERIOD AMP.ENABLED MOMENTUM BASE_LR "
    "WEIGHT_DECAY LR_SCHEDULER_NAME BASE_LR_END GAMMA STEPS WARMUP_FACTOR WARMUP_ITERS WARMUP_METHOD",
    "SOLVER.CLIP_GRADIENTS.": "ENABLED CLIP_TYPE CLIP_VALUE NORM_TYPE",
    "TEST.": "EVAL_PERIOD EXPECTED_RESULTS",
}
READ_KEYS = frozenset(prefix + key for prefix, keys in _READ.items() for key in keys.split())  # here or by d2_detr


def warn_unread(cfg: CfgNode) -> None:
    """Warn about every key of Detectron2 that has a new value and no reader; keys that others added are theirs."""
    defaults = dict(flatten(get_cfg()))
    changed = {k for k, value in flatten(cfg) if k in defaults and json.dumps(value) != json.dumps(defaults[k])}
    if unread := sorted(changed - READ_KEYS):
        logger.warning(f"These config keys are set, but nothing here reads them: {', '.join(unread)}")
